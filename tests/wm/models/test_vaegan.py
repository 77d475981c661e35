"""The VAE-GAN: which loss trains which parameters, which network is updated, and its effect on points of the plane."""

import math

import pytest
import torch
from torch import Tensor, nn

from wm.models.vaegan import Discriminator, Turns, likeness, play, route, turns
from wm.models.vision import VAE, draw

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other

NOISE = 0.05  # deviation of the ring's points from radius 1


def frames(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8, generator=generator)


class OneBatch:
    """V, a discriminator, and their losses on one batch."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.vision, self.discriminator, x = VAE(4), Discriminator(), frames(3)
        with torch.no_grad():
            self.vision.heads.weight *= 100  # so that KL is above its floor
        noise, prior = torch.randn(2, 3, 4)
        self.losses = play(self.vision, self.discriminator, x, x / 255, noise, prior).losses
        self.parts = {
            "encoder": self.vision.encoder(),
            "decoder": self.vision.decoder(),
            "discriminator": list(self.discriminator.parameters()),
        }

    def gradient(self, name: str, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, self.parts[name], retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.parts[name], found, strict=True)]

    def assigned(self, name: str) -> list[Tensor]:
        gradients = [parameter.grad for parameter in self.parts[name]]
        assert all(gradient is not None for gradient in gradients)
        return gradients  # type: ignore[return-value]


def test_each_parameter_of_v_is_the_encoders_or_the_decoders() -> None:
    vision = VAE(4)
    encoder, decoder = ({id(one) for one in part} for part in (vision.encoder(), vision.decoder()))
    assert not encoder & decoder
    assert encoder | decoder == {id(one) for one in vision.parameters()}


def test_each_loss_trains_only_its_own_parameters() -> None:
    batch = OneBatch()
    losses = batch.losses
    route(losses, batch.vision, batch.discriminator, gamma=0.3, gan=0.7)
    routed = {
        "encoder": losses.prior + losses.likeness,
        "decoder": 0.3 * losses.likeness + 0.7 * losses.fooling,
        "discriminator": losses.gan,
    }
    for name, loss in routed.items():
        torch.testing.assert_close(batch.assigned(name), batch.gradient(name, loss))
        assert all(gradient.abs().sum() > 0 for gradient in batch.assigned(name))
    # without routing, these losses have gradients for other parameters, too
    for name, loss in (("encoder", losses.fooling), ("encoder", losses.gan), ("discriminator", losses.likeness)):
        assert any(gradient.abs().sum() > 0 for gradient in batch.gradient(name, loss))


def test_a_paused_network_gets_no_gradient_and_keeps_its_weights() -> None:
    batch = OneBatch()
    for whose in (Turns(decoder=False), Turns(discriminator=False)):
        route(batch.losses, batch.vision, batch.discriminator, 1.0, 1.0, whose)
        assert all(p.grad is not None for p in batch.parts["encoder"])
        for name, turn in whose._asdict().items():
            assert all((p.grad is not None) == turn for p in batch.parts[name])
    before = [p.detach().clone() for p in batch.parts["discriminator"]]
    torch.optim.Adam(batch.parts["discriminator"]).step()
    assert all(torch.equal(a, b) for a, b in zip(before, batch.parts["discriminator"], strict=True))


@pytest.mark.parametrize(
    ("real", "made", "whose"),
    [
        (0.69, 0.69, Turns(True, True)),
        (0.30, 0.60, Turns(decoder=True, discriminator=False)),  # the discriminator is too strong
        (0.60, 0.01, Turns(decoder=True, discriminator=False)),
        (0.80, 1.10, Turns(decoder=False, discriminator=True)),  # the discriminator is too weak
        (0.20, 1.20, Turns(True, True)),  # it calls everything real: neither is ahead
    ],
)
def test_the_network_that_is_too_far_ahead_is_paused(real: float, made: float, whose: Turns) -> None:
    assert turns(real, made) == whose


def test_losses_match_their_formulas() -> None:
    torch.manual_seed(0)
    vision, discriminator, x = VAE(4), Discriminator(), frames(3)
    noise, prior = torch.randn(2, 3, 4)
    found = play(vision, discriminator, x, x / 255, noise, prior)
    mu, logvar = vision.encode(x)
    torch.testing.assert_close(found.decoded, vision.decode(draw(mu, logvar, noise)))
    torch.testing.assert_close(found.samples, vision.decode(prior))
    real, remade, sampled = (discriminator(one)[1].sigmoid() for one in (x / 255, found.decoded, found.samples))
    losses = found.losses
    torch.testing.assert_close(losses.real, -real.log().mean())
    torch.testing.assert_close(losses.made, -((1 - remade).log().mean() + (1 - sampled).log().mean()) / 2)
    torch.testing.assert_close(losses.fooling, -(remade.log().mean() + sampled.log().mean()) / 2)
    torch.testing.assert_close(losses.kl, vision.losses(x, noise)["kl"])
    assert losses.prior == 2  # the floor of 0.5 * Z


def test_the_feature_loss_has_the_scale_of_pixels_for_features_of_any_scale() -> None:
    x, made = torch.rand(2, 50, 8, 8, 3)
    seen, remade = (one.flatten(1) for one in (x, made))
    error = (x - made).square().sum((1, 2, 3)).mean()
    for size in (1.0, 1e-3, 40.0):
        torch.testing.assert_close(likeness(x, size * seen, size * remade), error)
    assert likeness(x[:1], seen[:1], remade[:1]) == 0  # one frame has no variance


@pytest.mark.parametrize(("layer", "size"), [(1, 32 * 31 * 31), (2, 64 * 14 * 14), (3, 128 * 6 * 6), (4, 256 * 2 * 2)])
def test_features_are_a_layers_raw_output_and_do_not_depend_on_the_batch(layer: int, size: int) -> None:
    torch.manual_seed(0)
    discriminator, x = Discriminator(layer), frames(5) / 255
    features, logits = discriminator.train()(x)
    assert (features.shape, logits.shape) == ((5, size), (5,))
    assert features.min() < 0 < features.max()
    alone = discriminator.eval()(x[2:3])
    torch.testing.assert_close(alone, (features[2:3], logits[2:3]), atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(one.dtype == torch.float32 for one in discriminator(x))


class Planar(nn.Module):
    """A VAE for points of the plane with a one-dimensional z."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        self.draw = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.code(x).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        return self.draw(z)

    def encoder(self) -> list[nn.Parameter]:
        return list(self.code.parameters())

    def decoder(self) -> list[nn.Parameter]:
        return list(self.draw.parameters())


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Linear(2, 64), nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.verdict = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.first(x)
        return features, self.verdict(self.rest(features)).squeeze(1)


def ring(count: int, generator: torch.Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    radius = 1 + NOISE * torch.randn(count, generator=generator)
    return radius[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)


def trained(kind: str, seed: int, steps: int = 300) -> tuple[float, float]:
    """The fractions of reconstructions and of samples that lie on the ring."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    planar, critic = Planar(), Critic()
    players = [planar.encoder(), planar.decoder(), list(critic.parameters())]
    optimisers = [torch.optim.Adam(player, lr=2e-3, betas=(0.5, 0.999)) for player in players]
    for step in range(steps):
        x = ring(128, generator)
        noise, prior = torch.randn(2, 128, 1, generator=generator)
        if kind == "vaegan":
            losses = play(planar, critic, x, x, noise, prior).losses
            whose = turns(*torch.stack((losses.real, losses.made)).tolist())
            route(losses, planar, critic, 1.0, min(1.0, step / 150), whose)
        else:  # the paper's VAE loss
            mu, logvar = planar.encode(x)
            kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
            error = (planar.decode(draw(mu, logvar, noise)) - x).square().sum(1)
            planar.zero_grad()
            (error + kl.clamp(min=0.5)).mean().backward()
        for optimiser in optimisers:
            optimiser.step()
    with torch.no_grad():
        x = ring(1000, generator)
        noise, prior = torch.randn(2, 1000, 1, generator=generator)
        made = planar.decode(draw(*planar.encode(x), noise)), planar.decode(prior)
    remade, sampled = (float(((one.norm(dim=1) - 1).abs() < 3 * NOISE).float().mean()) for one in made)
    return remade, sampled


def test_on_a_ring_samples_of_the_vaegan_lie_on_it_and_those_of_a_vae_do_not() -> None:
    assert max(trained("vae", seed=0)) < 0.3  # inside the ring, where there is no data
    assert min(trained("vaegan", seed=0)) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_training_collapses_with_no_seed(seed: int) -> None:
    assert min(trained("vaegan", seed)) > 0.9
