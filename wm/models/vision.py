"""V, the vision: encodes a frame as z and decodes it (Ha & Schmidhuber, 2018, section 2.1 and appendix A.1)."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]  # frames (B, 64, 64, 3) -> mu and logvar, each (B, Z)
Layer = Callable[[Tensor], Tensor]

ROWS = 64  # frames encoded in a batch; larger batches are not faster
LOGVAR = (-10.0, 10.0)  # so that its exp neither underflows nor overflows


class Vision(nn.Module, ABC):
    """The interface of V. Input frames are uint8 as stored, decoded frames are in [0, 1]; channels come last."""

    z: int

    @abstractmethod
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 frames (B, 64, 64, 3) -> mu and logvar, each (B, Z) and fp32."""

    def encoding(self, dtype: torch.dtype = torch.float32) -> Encoder:
        """A faster `encode` for CPUs, valid while the weights do not change, with convolutions in this precision."""

        def encode(frames: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast(frames.device.type, dtype, enabled=dtype != torch.float32):
                return self.encode(frames)

        return encode

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """z (B, Z) -> frames (B, 64, 64, 3), fp32 in [0, 1]."""

    @abstractmethod
    def losses(self, frames: Tensor, noise: Tensor, kl_weight: float = 1.0) -> dict[str, Tensor]:
        """Scalars for training, including "loss", "reconstruction" and "kl"; noise (B, Z) is standard normal."""

    @abstractmethod
    def encoder(self) -> list[nn.Parameter]:
        """The parameters of `encode`."""

    @abstractmethod
    def decoder(self) -> list[nn.Parameter]:
        """The parameters of `decode`, which playing does not need."""

    def encoder_only(self) -> Self:
        """A copy without the decoder, a sixth of the size, to send to workers that only play."""
        copied = copy.deepcopy(self)
        for parameter in copied.decoder():
            parameter.data = parameter.data.new_empty(0)
        return copied


def encode_in_batches(encode: Encoder, frames: Tensor, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Any number of frames -> mu and logvar, each (B, Z)."""
    mu, logvar = (torch.cat(parts) for parts in zip(*map(encode, frames.split(rows)), strict=True))
    return mu, logvar


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) in each dimension. (..., Z)"""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


def draw(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """z from N(mu, exp(logvar)), given standard normal noise of the same shape."""
    return mu + torch.exp(0.5 * logvar) * noise


class VAE(Vision):
    """The paper's convolutional variational autoencoder (appendix A.1)."""

    def __init__(self, z: int = 32) -> None:
        super().__init__()
        self.z = z
        sizes = [3, 32, 64, 128, 256]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, kernel_size=4, stride=2) for i, o in pairwise(sizes))
        self.heads = nn.Linear(1024, 2 * z)  # mu and logvar
        self.widen = nn.Linear(z, 1024)
        self.deconvolution = nn.ConvTranspose2d(1024, 128, kernel_size=5, stride=2)  # on a 1x1 input
        self.deconvolutions = nn.ModuleList(
            [
                nn.ConvTranspose2d(128, 64, kernel_size=5, stride=2),
                nn.ConvTranspose2d(64, 32, kernel_size=6, stride=2),
                nn.ConvTranspose2d(32, 3, kernel_size=6, stride=2),
            ]
        )
        # Stored frames are channels-last: with weights in the same format, no convolution has to reorder its input.
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self._encode(_pixels(frames))

    def encoding(self, dtype: torch.dtype = torch.float32) -> Encoder:
        on_cpu = self.heads.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if not on_cpu or (dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            return super().encoding(dtype)
        # bfloat16 has 8 bits, so bytes are exact in it and bytes / 255 are not: there the weights are divided instead.
        scales = [1 / 255 if dtype == torch.bfloat16 else 1.0, 1.0, 1.0, 1.0]
        layers, size = list[Layer](), 64
        for convolution, scale in zip(self.convolutions, scales, strict=True):
            layers.append(_packed(convolution, size, dtype, scale))
            size = size // 2 - 1  # 64, 31, 14, 6
        if dtype == torch.bfloat16:
            return lambda frames: self._encode(frames.permute(0, 3, 1, 2).to(dtype), layers)
        return lambda frames: self._encode(_pixels(frames), layers)

    def decode(self, z: Tensor) -> Tensor:
        first = self.deconvolution
        *hidden, last = self.deconvolutions
        # On a 1x1 input the first deconvolution is a matrix product, which takes an eighth of the time.
        weight = first.weight.permute(0, 2, 3, 1).flatten(start_dim=1)  # (1024, 5 * 5 * 128)
        x = (self.widen(z) @ weight).view(-1, 5, 5, 128) + first.bias
        x = F.relu(x.permute(0, 3, 1, 2))  # (B, 128, 5, 5)
        for deconvolution in hidden:
            x = F.relu(deconvolution(x))  # (B, 64, 13, 13), (B, 32, 30, 30)
        return torch.sigmoid(last(x).float()).permute(0, 2, 3, 1)  # (B, 64, 64, 3)

    def losses(
        self, frames: Tensor, noise: Tensor, kl_weight: float = 1.0, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Squared error plus KL (appendix A.1), with a lower bound on KL as in the authors' code.

        "reconstruction": squared error of frames in [0, 1], summed over pixels and channels, mean over B. Pixels may
            have a `weight`, (B, 64, 64, 1).
        "kl": KL(N(mu, exp(logvar)) || N(0, 1)) summed over Z, mean over B.
        "loss": reconstruction + kl_weight * max(KL, 0.5 * Z), with the maximum taken for each frame, mean over B.
        """
        x = _pixels(frames)  # (B, 3, 64, 64)
        mu, logvar = self._encode(x)
        decoded = self.decode(draw(mu, logvar, noise))
        target = x.permute(0, 2, 3, 1)  # (B, 64, 64, 3)
        if weight is None:
            error = F.mse_loss(decoded, target, reduction="sum")
        else:
            error = (weight * (decoded - target) ** 2).sum()
        reconstruction = error / len(frames)
        kl = kl_divergence(mu, logvar).sum(dim=1)  # (B,)
        loss = reconstruction + kl_weight * kl.clamp(min=0.5 * self.z).mean()
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl.mean()}

    def encoder(self) -> list[nn.Parameter]:
        return [*self.convolutions.parameters(), *self.heads.parameters()]

    def decoder(self) -> list[nn.Parameter]:
        return [*self.widen.parameters(), *self.deconvolution.parameters(), *self.deconvolutions.parameters()]

    def _encode(self, x: Tensor, layers: Iterable[Layer] = ()) -> tuple[Tensor, Tensor]:
        for layer in layers or map(_with_relu, self.convolutions):
            x = layer(x)  # (B, 32, 31, 31), (B, 64, 14, 14), (B, 128, 6, 6), (B, 256, 2, 2)
        x = x.permute(0, 2, 3, 1).flatten(start_dim=1)  # (B, 1024)
        with torch.autocast(x.device.type, enabled=False):  # exp(logvar) needs more precision than bf16
            mu, logvar = self.heads(x.float()).chunk(2, dim=1)  # (B, Z) each
        return mu, logvar.clamp(*LOGVAR)


def _with_relu(convolution: nn.Module) -> Layer:
    return lambda x: F.relu(convolution(x))


@torch.no_grad()
def _packed(convolution: nn.Module, size: int, dtype: torch.dtype, scale: float) -> Layer:
    """The convolution and its ReLU for inputs of this size, with weights reordered for oneDNN once.

    Otherwise oneDNN reorders them for each batch, which takes half of the time for one frame and a fifth for sixteen.
    """
    assert isinstance(convolution, nn.Conv2d), convolution
    assert convolution.bias is not None
    options: Any = ([0, 0], [2, 2], [1, 1], 1)  # padding, stride, dilation, groups
    shape = (16, convolution.in_channels, size, size)  # other batch sizes are as fast
    weight, bias = (convolution.weight * scale).to(dtype), convolution.bias.to(dtype)
    packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *options, shape)
    return lambda x: torch.ops.mkldnn._convolution_pointwise(x, packed, bias, *options, "relu", [], "")


def _pixels(frames: Tensor) -> Tensor:
    """uint8 (B, 64, 64, 3) -> fp32 in [0, 1], (B, 3, 64, 64) in channels-last format, so only the view changes."""
    assert frames.dtype == torch.uint8, frames.dtype
    assert frames.shape[1:] == (64, 64, 3), frames.shape
    return frames.permute(0, 3, 1, 2) / 255
