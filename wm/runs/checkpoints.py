"""Checkpoints that detect damage."""

import contextlib
import logging
import re
from typing import Any

from torch import Tensor

from wm.errors import UserError
from wm.runs.reader import Damaged, pack, unpack
from wm.runs.storage import Storage, sha256

log = logging.getLogger(__name__)

KEPT = 2  # last checkpoints that are kept, in addition to the best weights


class Checkpoints:
    """Numbered files with their hash in the name, so that damaged ones are detected and skipped."""

    def __init__(self, storage: Storage, folder: str):
        self.storage, self.folder = storage, folder

    def save(self, step: int, state: dict[str, Tensor], info: dict[str, Any], keep: str) -> None:
        data = pack(state, info)
        key = f"{self.folder}/step-{step:010d}-{sha256(data)[:12]}.safetensors"
        self.storage.put_new(key, data)
        for other in self._keys(f"step-{step:010d}"):
            if other != key:
                self.storage.delete(other)  # an earlier state of the same step
        for other in self._keys("step-")[:-KEPT]:
            self.storage.delete(other)
        for other in self._keys("best-"):
            if other != keep:
                self.storage.delete(other)

    def save_best(self, step: int, weights: dict[str, Tensor]) -> str:
        data = pack(weights, {})
        key = f"{self.folder}/best-{step:010d}-{sha256(data)[:12]}.safetensors"
        self.storage.put(key, data)  # replacing is safe: the name contains the hash
        return key

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(state, info) of the last undamaged checkpoint."""
        for key in reversed(self._keys("step-")):
            with contextlib.suppress(Damaged):
                return verify_checkpoint(self.storage, key)
            log.warning("%s/%s is damaged: resuming from the previous checkpoint", self.storage.uri, key)
            self.storage.delete(key)  # otherwise put_new would keep it when it is made again
        return None

    def read_best(self, key: str) -> bytes:
        """The file that `save_best` wrote; raises a UserError if it is missing or damaged."""
        data = self.storage.get(key) or b""
        if sha256(data)[:12] != key.removesuffix(".safetensors")[-12:]:
            raise UserError(
                f"{self.storage.uri}/{key} is missing or damaged: remove the folder {self.folder} and run the same"
                " command again, which trains from the start"
            )
        return data

    def _keys(self, prefix: str) -> list[str]:
        return [key for key in self.storage.sizes(self.folder) if key.startswith(f"{self.folder}/{prefix}")]


def verify_checkpoint(storage: Storage, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Its (state, info); raises `Damaged` if they are not those of the hash and the step in its name."""
    data, file, cure = storage.get(key) or b"", f"{storage.uri}/{key}", "delete it: the previous one is used"
    if sha256(data)[:12] != key.removesuffix(".safetensors")[-12:]:
        raise Damaged(file, "its SHA-256 differs", cure)
    state, info = unpack(data, file, cure)
    step = re.search(r"/step-([0-9]{10})-", key)
    if step and int(step[1]) != info.get("step", info.get("generation")):
        raise Damaged(file, "it is of another step", cure)
    return state, info
