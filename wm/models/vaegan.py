"""V trained as a VAE-GAN, with a reconstruction loss on a discriminator's features (Larsen et al., 2016).

V is the VAE's network, so its weights and latents can replace a VAE's everywhere. The discriminator exists in training
only. Each batch passes through the networks once, and each loss updates its own parameters (their algorithm 1):

    encoder         L_prior + L_llike
    decoder         gamma * L_llike - L_GAN
    discriminator   L_GAN

A Wasserstein critic (Arjovsky et al., 2017) needs several updates for each update of V, or a gradient penalty with
another backward pass: two to five times the time. `turns` keeps the training stable without it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm.models.vision import draw, kl_divergence

EQUILIBRIUM, MARGIN = 0.69, 0.35  # of the discriminator's cross entropies; log 2 is a random guess
LEAK = 0.2  # slope of the discriminator's leaky ReLU (Radford et al., 2015)


class Coder(Protocol):
    """The interface of V that this training needs."""

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def encoder(self) -> list[nn.Parameter]: ...

    def decoder(self) -> list[nn.Parameter]: ...


class Discriminator(nn.Module):
    """Classifies frames as real or made by V, with the convolutions of V's encoder.

    Each convolution except the first, which needs absolute colours, is followed by a group normalisation with one group
    for the whole frame: it uses neither other frames of the batch nor running means.
    """

    def __init__(self, layer: int = 2) -> None:
        super().__init__()
        self.layer = layer  # its raw output is the features
        sizes = [3, 32, 64, 128, 256]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, kernel_size=4, stride=2) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList([nn.Identity(), *(nn.GroupNorm(1, size) for size in sizes[2:])])
        self.verdict = nn.Linear(1024, 1)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, 64, 64, 3) in [0, 1] -> features (B, F) and logits (B,) for being real."""
        x = x.permute(0, 3, 1, 2)  # (B, 3, 64, 64)
        features = x
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True), start=1):
            x = convolution(x)  # (B, 32, 31, 31), (B, 64, 14, 14), (B, 128, 6, 6), (B, 256, 2, 2)
            if number == self.layer:
                features = x
            x = F.leaky_relu(norm(x), LEAK)
        return features.flatten(start_dim=1).float(), self.verdict(x.flatten(start_dim=1)).float().squeeze(1)


class Losses(NamedTuple):
    """The losses of one batch, all scalars."""

    prior: Tensor  # L_prior: KL summed over Z, at least 0.5 * Z per frame as in the VAE, mean over B, weighted
    likeness: Tensor  # L_llike, see `likeness`
    real: Tensor  # -log Dis(x)
    made: Tensor  # -log(1 - Dis(.)), mean over reconstructions and samples of the prior
    fooling: Tensor  # -log Dis(.), mean over both
    kl: Tensor  # without the lower bound

    @property
    def gan(self) -> Tensor:
        """-L_GAN as a mean, which the discriminator minimises."""
        return (self.real + self.made) / 2


class Played(NamedTuple):
    losses: Losses
    decoded: Tensor  # reconstructions, in the shape of frames
    samples: Tensor  # of the prior


def play(
    coder: Coder,
    discriminator: nn.Module,
    frames: Tensor,
    x: Tensor,
    noise: Tensor,
    prior: Tensor,
    kl_weight: float = 1.0,
) -> Played:
    """The losses of one batch: `frames` in the encoder's format, `x` in the decoder's, normal noise and prior (B, Z).

    The decoder minimises -log Dis(.) instead of log(1 - Dis(.)), whose gradient vanishes where the discriminator is
    certain (Goodfellow et al., 2014).
    """
    mu, logvar = coder.encode(frames)  # (B, Z)
    decoded, samples = coder.decode(draw(mu, logvar, noise)), coder.decode(prior)
    features, logits = discriminator(torch.cat((x, decoded, samples)))  # (3B, F), (3B,)
    real_features, decoded_features, _ = features.chunk(3)
    real, fake = logits.split((len(x), 2 * len(x)))
    kl = kl_divergence(mu, logvar).sum(dim=1)  # (B,)
    losses = Losses(
        prior=kl_weight * kl.clamp(min=0.5 * mu.shape[1]).mean(),
        likeness=likeness(x, real_features, decoded_features),
        real=F.softplus(-real).mean(),
        made=F.softplus(fake).mean(),
        fooling=F.softplus(-fake).mean(),
        kl=kl.mean(),
    )
    return Played(losses, decoded, samples)


def likeness(x: Tensor, real: Tensor, decoded: Tensor) -> Tensor:
    """Squared error of features (B, F), summed over F, mean over B, on the scale of the VAE's squared error of pixels.

    Features are scaled so that their variance over the batch, summed over F, equals that of the pixels. KL then has the
    same weight as in the VAE, and the discriminator cannot change the weight of this loss by scaling its features.
    """
    scale = (variance(x).sum() / variance(real).sum().clamp(min=1e-8)).detach()
    return scale * (real - decoded).square().sum(dim=1).mean()


def variance(x: Tensor) -> Tensor:
    """Variance over the batch; 0 for a batch of one. (...)"""
    return x.var(dim=0, correction=0)


class Turns(NamedTuple):
    """The networks to update: one that is too far ahead is paused, as in the authors' code; never both."""

    decoder: bool | Tensor = True
    discriminator: bool | Tensor = True


BOTH = Turns()


def turns(real: float | Tensor, made: float | Tensor) -> Turns:
    """Depends only on the discriminator's two cross entropies on this batch, so that training can resume exactly.

    On a GPU they are scalars in fp64, and nothing waits for them.
    """
    low, high = EQUILIBRIUM - MARGIN, EQUILIBRIUM + MARGIN
    strong, weak = (real < low) | (made < low), (real > high) | (made > high)
    not_strong, not_weak = (real >= low) & (made >= low), (real <= high) & (made <= high)
    return Turns(decoder=not_weak | strong, discriminator=not_strong | weak)


def route(
    losses: Losses, coder: Coder, discriminator: nn.Module, gamma: float, gan: float | Tensor, whose: Turns = BOTH
) -> None:
    """Set each network's gradients from its own losses; None for a paused network.

    `gan` is the weight of the GAN loss in the decoder, which grows to 1.
    """
    _set(coder.encoder(), losses.prior + losses.likeness)
    _set(coder.decoder(), gamma * losses.likeness + gan * losses.fooling if whose.decoder else None)
    _set(list(discriminator.parameters()), losses.gan if whose.discriminator else None)


def _set(parameters: Sequence[nn.Parameter], loss: Tensor | None) -> None:
    """Set the gradients of these parameters only; the graph is kept for the next call."""
    gradients: Sequence[Tensor | None] = [None] * len(parameters)
    if loss is not None:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None and gradient.stride() != parameter.stride():  # which CUDA's fused Adam refuses
            gradient = torch.empty_like(parameter).copy_(gradient)
        parameter.grad = gradient
