"""V trained as a VAE-GAN: what counts is not pixels but what a discriminator sees (Larsen et al., 2016).

V itself is the same network as ever, so that its z, its weights and all that is made from them are interchangeable
with a VAE's. Beside it, in training alone, stands a discriminator. A batch is played once, and each loss reaches
only the parameters that it is for (their algorithm 1):

    encoder         L_prior + L_llike
    decoder         gamma * L_llike - L_GAN
    discriminator   L_GAN

A Wasserstein critic (Arjovsky et al., 2017) would need several updates for each of V's, or a penalty on its
gradient's norm that costs another backward pass: two to five times the work, for a stability that the balance below
gives as well.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm.models.vision import draw, kl_divergence

EQUILIBRIUM, MARGIN = 0.69, 0.35  # of the discriminator's cross entropies: it knows nothing at log 2
LEAK = 0.2  # of the discriminator's rectifiers (Radford et al., 2015): V's gradients pass where it says no


class Coder(Protocol):
    """What is trained here: V, or anything else that codes."""

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def encoder(self) -> list[nn.Parameter]: ...

    def decoder(self) -> list[nn.Parameter]: ...


class Discriminator(nn.Module):
    """Tells frames from what V makes; the convolutions are those of V's encoder.

    Each but the first, which has to know colours as they are, is followed by a normalisation over the whole frame,
    which knows no other frame of the batch and no running means: the same in training and in use.
    """

    def __init__(self, layer: int = 2) -> None:
        super().__init__()
        self.layer = layer  # whose raw output are the features
        sizes = [3, 32, 64, 128, 256]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, kernel_size=4, stride=2) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList([nn.Identity(), *(nn.GroupNorm(1, size) for size in sizes[2:])])
        self.verdict = nn.Linear(1024, 1)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, 64, 64, 3) on [0, 1] -> features (B, F) and logits (B,) that they are real."""
        x = x.permute(0, 3, 1, 2)  # (B, 3, 64, 64)
        features = x
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True), start=1):
            x = convolution(x)  # (B, 32, 31, 31), (B, 64, 14, 14), (B, 128, 6, 6), (B, 256, 2, 2)
            if number == self.layer:
                features = x
            x = F.leaky_relu(norm(x), LEAK)
        return features.flatten(start_dim=1).float(), self.verdict(x.flatten(start_dim=1)).float().squeeze(1)


class Losses(NamedTuple):
    """Of one batch, all scalars."""

    prior: Tensor  # L_prior: KL summed over Z, at least 0.5 * Z for each frame as in the VAE, mean over B, weighted
    likeness: Tensor  # L_llike, see `likeness`
    real: Tensor  # -log Dis(x)
    made: Tensor  # -log(1 - Dis(.)), half of it from reconstructions, half from samples of the prior
    fooling: Tensor  # -log Dis(.) of both
    kl: Tensor  # without the floor

    @property
    def gan(self) -> Tensor:
        """-L_GAN, as a mean: what the discriminator minimises."""
        return (self.real + self.made) / 2


class Played(NamedTuple):
    losses: Losses
    decoded: Tensor  # reconstructions, as frames are
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
    """One batch: frames as the encoder takes them and x as the decoder gives them; noise and prior (B, Z) are normal.

    The decoder does not minimise log(1 - Dis(.)) but -log Dis(.), which has the same aim and a gradient where the
    discriminator is sure (Goodfellow et al., 2014).
    """
    mu, logvar = coder.encode(frames)  # (B, Z)
    decoded, samples = coder.decode(draw(mu, logvar, noise)), coder.decode(prior)
    features, logits = discriminator(torch.cat((x, decoded, samples)))  # (3B, F), (3B,)
    seen, remade, _ = features.chunk(3)
    real, fake = logits.split((len(x), 2 * len(x)))
    kl = kl_divergence(mu, logvar).sum(dim=1)  # (B,)
    losses = Losses(
        prior=kl_weight * kl.clamp(min=0.5 * mu.shape[1]).mean(),
        likeness=likeness(x, seen, remade),
        real=F.softplus(-real).mean(),
        made=F.softplus(fake).mean(),
        fooling=F.softplus(-fake).mean(),
        kl=kl.mean(),
    )
    return Played(losses, decoded, samples)


def likeness(x: Tensor, seen: Tensor, remade: Tensor) -> Tensor:
    """Squared error of features (B, F), summed over F, mean over B, in the unit of the VAE's squared error of pixels.

    For that, features are scaled until their variance over the batch, summed over F, is that of the pixels. So KL
    weighs what it weighs in the VAE, and the discriminator can't change the weight of this loss by scaling features.
    """
    scale = (variance(x).sum() / variance(seen).sum().clamp(min=1e-8)).detach()
    return scale * (seen - remade).square().sum(dim=1).mean()


def variance(x: Tensor) -> Tensor:
    """Over the batch, which may be a single one, for each number. (...)"""
    return x.var(dim=0, correction=0)


class Turns(NamedTuple):
    """Whose update is made: one that is too far ahead waits, as in the authors' code; never both."""

    decoder: bool = True
    discriminator: bool = True


BOTH = Turns()


def turns(real: float, made: float) -> Turns:
    """From the discriminator's two cross entropies on this batch, and so the same again after a resume."""
    strong = min(real, made) < EQUILIBRIUM - MARGIN
    weak = max(real, made) > EQUILIBRIUM + MARGIN
    return Turns(decoder=not weak or strong, discriminator=not strong or weak)


def route(
    losses: Losses, coder: Coder, discriminator: nn.Module, gamma: float, gan: float, whose: Turns = BOTH
) -> None:
    """Set the gradients, each from its own losses alone; None where it is not one's turn.

    gan is the ramp: how much of the GAN loss the decoder feels already.
    """
    _set(coder.encoder(), losses.prior + losses.likeness)
    _set(coder.decoder(), gamma * losses.likeness + gan * losses.fooling if whose.decoder else None)
    _set(list(discriminator.parameters()), losses.gan if whose.discriminator else None)


def _set(parameters: Sequence[nn.Parameter], loss: Tensor | None) -> None:
    """Autograd walks only the paths to these; the graph is kept for the next."""
    gradients: Sequence[Tensor | None] = [None] * len(parameters)
    if loss is not None:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
