"""Tensor files as tests read them, without the messages for users."""

from typing import Any

from torch import Tensor

from wm.runs.reader import unpack


def unpacked(data: bytes | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    assert data is not None
    return unpack(data, "a file of this test", "")
