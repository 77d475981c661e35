"""V: the paper's network, its losses, and encoders for workers that only play."""

import pickle

import pytest
import torch

from wm.models.vision import VAE, Vision, draw

torch.set_num_threads(1)  # with small tensors, threads mostly wait for each other


def frames(batch: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE()


@pytest.mark.parametrize(("z", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_sizes_are_the_papers(z, count):
    assert sum(p.numel() for p in VAE(z).parameters()) == count


def test_vision_is_abstract():
    with pytest.raises(TypeError):
        Vision()


def test_encode_and_decode_have_the_documented_shapes(vae):
    mu, logvar = vae.encode(frames(5))
    assert mu.shape == logvar.shape == (5, 32)
    decoded = vae.decode(mu)
    assert decoded.shape == (5, 64, 64, 3)
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_encode_is_the_papers_network_on_frames_in_0_to_1(vae):
    x = frames(3).float().permute(0, 3, 1, 2).contiguous() / 255
    for convolution in vae.convolutions:
        x = torch.relu(torch.nn.functional.conv2d(x, convolution.weight.contiguous(), convolution.bias, stride=2))
    assert x.shape == (3, 256, 2, 2)
    expected = vae.heads(x.permute(0, 2, 3, 1).reshape(3, 1024))
    torch.testing.assert_close(torch.cat(vae.encode(frames(3)), dim=1), expected, atol=1e-5, rtol=1e-5)


def test_decode_is_the_papers_network(vae):
    z = torch.randn(3, 32)
    x = vae.widen(z)[:, :, None, None]
    for deconvolution in (vae.deconvolution, *vae.deconvolutions[:-1]):
        x = torch.relu(deconvolution(x))
    expected = torch.sigmoid(vae.deconvolutions[-1](x)).permute(0, 2, 3, 1)
    torch.testing.assert_close(vae.decode(z), expected, atol=1e-6, rtol=1e-5)


def test_encoding_a_frame_does_not_depend_on_its_batch(vae):
    batch = frames(37)
    whole = torch.cat(vae.encode(batch), dim=1)
    for part in (slice(0, 1), slice(5, 36)):
        torch.testing.assert_close(torch.cat(vae.encode(batch[part]), dim=1), whole[part], atol=1e-5, rtol=1e-5)


def test_losses_are_sums_over_a_frame_and_means_over_the_batch(vae):
    batch, noise = frames(6), torch.randn(6, 32)
    found = vae.losses(batch, noise)
    mu, logvar = vae.encode(batch)
    error = vae.decode(draw(mu, logvar, noise)) - batch / 255
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(found["reconstruction"], error.square().sum((1, 2, 3)).mean())
    torch.testing.assert_close(found["kl"], kl.mean(), atol=1e-5, rtol=1e-4)
    assert (kl < 16).all()  # below the floor of 0.5 * Z, so the floor counts
    torch.testing.assert_close(found["loss"], found["reconstruction"] + 16)
    torch.testing.assert_close(vae.losses(batch, noise, kl_weight=0.25)["loss"], found["reconstruction"] + 4)


def test_kl_has_a_floor_for_each_frame(vae):
    batch = torch.cat((frames(3), torch.zeros(3, 64, 64, 3, dtype=torch.uint8)))
    large = VAE()
    with torch.no_grad():
        large.heads.weight.mul_(600)
    mu, logvar = large.encode(batch)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    assert kl.max() > 16
    found = large.losses(batch, torch.zeros(6, 32))
    torch.testing.assert_close(found["loss"] - found["reconstruction"], kl.clamp(min=16).mean(), rtol=1e-4, atol=1e-3)


def test_draw_has_the_given_moments():
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]])
    z = draw(mu.expand(50_000, 2), logvar.expand(50_000, 2), torch.randn(50_000, 2))
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), logvar[0].exp(), atol=0.03, rtol=0)


def test_every_parameter_gets_a_gradient_and_only_the_noise_is_random():
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        vae = VAE()
        torch.manual_seed(len(gradients))  # must not matter
        vae.losses(frames(4), torch.ones(4, 32))["reconstruction"].backward()
        gradients.append([p.grad for p in vae.parameters()])
    torch.testing.assert_close(*gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])


def test_bf16_autocast_keeps_loss_and_logvar_in_fp32(vae):
    batch, noise = frames(4), torch.randn(4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = vae.losses(batch, noise)
        mu, logvar = vae.encode(batch)
        decoded = vae.decode(mu)
    assert all(x.dtype == torch.float32 for x in (*found.values(), mu, logvar, decoded))
    reference = vae.losses(batch, noise)
    torch.testing.assert_close(found["loss"], reference["loss"], rtol=0.01, atol=0)
    found["loss"].backward()
    vae.zero_grad()


def test_extreme_weights_give_finite_losses():
    vae = VAE()
    with torch.no_grad():
        vae.heads.weight.mul_(1e4)
    found = vae.losses(frames(4), torch.randn(4, 32))
    assert all(value.isfinite() for value in found.values())


def test_short_training_learns_a_colour():
    torch.manual_seed(0)
    vae = VAE(4)
    optimizer = torch.optim.Adam(vae.parameters(), 2e-3)
    batch = torch.tensor([40, 200, 90], dtype=torch.uint8).expand(2, 64, 64, 3).contiguous()
    first = None
    for _ in range(30):
        loss = vae.losses(batch, torch.randn(2, 4))["reconstruction"]
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 4


def test_frames_of_another_type_or_size_are_refused(vae):
    with pytest.raises(AssertionError, match="float32"):
        vae.encode(torch.rand(1, 64, 64, 3))
    with pytest.raises(AssertionError, match="96"):
        vae.encode(torch.zeros(1, 96, 96, 3, dtype=torch.uint8))


@torch.inference_mode()
def test_the_packed_encoder_matches_encode(vae):
    encode = vae.encoder_only().encoding()
    for count in (1, 3, 16, 40):
        for expected, found in zip(vae.encode(frames(count)), encode(frames(count)), strict=True):
            torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_packed_encoder_in_bfloat16_is_close_to_encode(vae):
    """The first convolution's input is exact, so the error is a few rounding errors of 1/256."""
    seen = frames(16)
    mu, logvar = vae.encode(seen)
    for expected, found in zip((mu, logvar), vae.encoding(torch.bfloat16)(seen), strict=True):
        assert found.dtype == torch.float32
        error = (found - expected).square().mean().sqrt() / expected.std()
        assert 0 < error < 0.02, error


def test_encoder_only_drops_the_decoder(vae):
    light = pickle.loads(pickle.dumps(vae.encoder_only()))
    assert len(pickle.dumps(light)) < len(pickle.dumps(vae)) / 5
    for expected, found in zip(vae.encode(frames(5)), light.encode(frames(5)), strict=True):
        assert torch.equal(expected, found)
    assert vae.decode(torch.zeros(1, 32)).shape == (1, 64, 64, 3)  # the original keeps its decoder
