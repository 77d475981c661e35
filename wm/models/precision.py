"""float32 or bfloat16: the precision of the layers of V and M, and of the products in dreams."""

import logging
from functools import cache
from typing import Literal

import torch

log = logging.getLogger(__name__)


def fast_precision(device: str = "cpu") -> Literal["float32", "bfloat16"]:
    """What this machine is fast at: bfloat16 on GPUs, and on processors with matrix instructions for it."""
    if device != "cpu" and torch.cuda.is_available():
        return "bfloat16"
    found = torch.cpu.get_capabilities()
    return "bfloat16" if found.get("amx_bf16") or found.get("avx512_bf16") else "float32"


@cache  # warns once per process
def dtype_of(precision: str, device: str = "cpu") -> torch.dtype:
    if precision == "bfloat16" and fast_precision(device) != "bfloat16":
        log.warning(
            "this run uses bfloat16, which this processor only emulates: use one with AMX or AVX-512 bf16, or start a"
            " run with --controller.precision float32"
        )
    return getattr(torch, precision)  # type: ignore[no-any-return]
