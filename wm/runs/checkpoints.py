"""Tensors in files: checkpoints that know whether they are whole, and weights that can't run code."""

import json
import logging
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from wm.errors import UserError
from wm.runs.storage import Storage, sha256

log = logging.getLogger(__name__)

KEPT = 2  # last checkpoints kept; the best weights are kept besides


class Checkpoints:
    """Numbered files whose names carry their own hash: one that is not whole is known and passed over."""

    def __init__(self, storage: Storage, folder: str):
        self.storage, self.folder = storage, folder

    def save(self, step: int, state: dict[str, Tensor], info: dict[str, Any], keep: str) -> None:
        data = pack(state, info)
        self.storage.put_new(f"{self.folder}/step-{step:010d}-{sha256(data)[:12]}.safetensors", data)
        for key in self._keys("step-")[:-KEPT]:
            self.storage.delete(key)
        for key in self._keys("best-"):
            if key != keep:
                self.storage.delete(key)

    def save_best(self, step: int, weights: dict[str, Tensor]) -> str:
        data = pack(weights, {})
        key = f"{self.folder}/best-{step:010d}-{sha256(data)[:12]}.safetensors"
        self.storage.put(key, data)  # its name vouches for its content
        return key

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last whole checkpoint: (state, info)."""
        for key in reversed(self._keys("step-")):
            data = self.storage.get(key) or b""
            if sha256(data)[:12] == key.removesuffix(".safetensors")[-12:]:
                return unpack(data)
            log.warning("%s/%s is damaged; going on from the checkpoint before it", self.storage.uri, key)
            self.storage.delete(key)  # else it would stand in the way of the same one made again
        return None

    def read_best(self, key: str) -> bytes:
        """What `save_best` wrote, or the Mistake that names the cure."""
        data = self.storage.get(key) or b""
        if sha256(data)[:12] != key.removesuffix(".safetensors")[-12:]:
            raise UserError(
                f"{self.storage.uri}/{key} is missing or damaged: remove the folder {self.folder} and give the same"
                " command again, which trains from the start"
            )
        return data

    def _keys(self, prefix: str) -> list[str]:
        return [key for key in self.storage.sizes(self.folder) if key.startswith(f"{self.folder}/{prefix}")]


def pack(tensors: dict[str, Tensor], info: dict[str, Any]) -> bytes:
    """Tensors and a little JSON as one safetensors file: nothing in it can run when it is read."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(whole, metadata={"info": json.dumps(info, sort_keys=True)})


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load_tensors(data), json.loads(header["__metadata__"]["info"])
