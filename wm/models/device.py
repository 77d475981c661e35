"""The settings of CUDA on which the bits of a result depend, in one place.

On a GPU, "float32" means TF32 in matrix products, convolutions and LSTMs: the range of fp32, 10 bits of mantissa, sums
in fp32. Everything else is fp32. torch's own default differs between cuDNN and cuBLAS, so both are set here; manifests
record the choice.

Trainings and dreams repeat bit for bit on the same kind of GPU with the same versions: cuDNN uses deterministic kernels
and does not choose them by their time, and cuBLAS has a workspace of fixed size.
"""

import os
from typing import Any

import torch

from wm.errors import UserError

FLOAT32 = "tf32"  # or "ieee"
WORKSPACES = (":4096:8", ":16:8")  # with which cuBLAS is deterministic; the first is faster


def problem() -> str:
    """Why torch can't use a GPU in this process; empty if it can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, finds no GPU with a driver for it"
    return ""


def prepare(device: str, float32: str = FLOAT32) -> None:
    """Set up this process for trainings and dreams on the device, before it uses CUDA; nothing for the CPU."""
    if torch.device(device).type == "cpu":
        return
    if reason := problem():
        raise UserError(
            f"can't use cuda: {reason}: install a CUDA build of torch and its driver on the nodes with GPUs, or set"
            " --vision.device, --memory.device and --evolve.device to cpu"
        )
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]  # read when cuBLAS starts
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    cudnn: Any = torch.backends.cudnn  # whose types lack these attributes
    for kind in (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn):
        kind.fp32_precision = float32  # type: ignore[union-attr]


def description(device: torch.device) -> dict[str, Any]:
    """The GPU for manifests; empty for the CPU, which manifests name anyway."""
    if device.type == "cpu":
        return {}
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "float32": FLOAT32,
    }
