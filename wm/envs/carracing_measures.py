"""Whether V sees what matters in CarRacing: the car and the edge of the road, a few pixels of 4096.

The mean over all pixels is mostly grass. What is what is told by the colours of the frame itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CAR = (slice(48, 64), slice(29, 35))  # where in the frame the car always stands; kerbs elsewhere are red, too
RED = 0.15  # how much redder than anything else, on [0, 1]
GREY = 0.05  # how close to each other the colours of the road's greys are


def car_and_road(frames: Tensor, decoded: Tensor) -> dict[str, float]:
    """Squared error on [0, 1], mean over pixels and channels: "mse", and "mse_car" and "mse_road_edge" alone.

    frames as stored, decoded on [0, 1], each (B, 64, 64, 3). What is on no frame is not in the answer.
    """
    assert frames.shape == decoded.shape, (frames.shape, decoded.shape)
    x = frames.to(decoded.device) / 255
    error = ((x - decoded) ** 2).double().mean(dim=-1)  # (B, 64, 64)
    measures = {"mse": float(error.mean())}
    for name, mask in (("mse_car", car_mask(x)), ("mse_road_edge", edge_mask(x))):
        if mask.any():
            measures[name] = float(error[mask].mean())
    return measures


def car_mask(x: Tensor) -> Tensor:
    """The car's red, (B, 64, 64); frames are on [0, 1]."""
    red, green, blue = x.unbind(dim=-1)
    mask = torch.zeros_like(red, dtype=torch.bool)
    mask[:, *CAR] = (red - torch.maximum(green, blue) > RED)[:, *CAR]
    return mask


def edge_mask(x: Tensor) -> Tensor:
    """Pixels with both road and grass in them or next to them, (B, 64, 64); frames are on [0, 1]."""
    red, green, blue = x.unbind(dim=-1)
    grey = (x.amax(dim=-1) - x.amin(dim=-1) < GREY) & (green > 0.3) & (green < 0.5)
    grass = (green - torch.maximum(red, blue) > 0.3) & (green > 0.7)
    return _dilated(grey) & _dilated(grass)


def _dilated(mask: Tensor) -> Tensor:
    """By one pixel to each side."""
    return F.max_pool2d(mask[:, None].float(), kernel_size=3, stride=1, padding=1)[:, 0] > 0
