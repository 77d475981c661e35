"""Lets the benchmark of GPUs run on a machine that has only torch and numpy.

It needs V, M, their trainings and dreams, which need nothing else. The modules that they are in also import packages
for games, files and command lines; the missing ones are replaced with empty ones, whose use fails.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

PACKAGES = (
    *("gymnasium", "tyro", "pyarrow", "safetensors", "cv2", "obstore", "tensorboardX", "threadpoolctl", "cma", "Box2D"),
    *("vizdoom", "pygame", "rich", "yaml", "ray"),
)


class Empty:
    """Anything in a missing package: a base class or an annotation."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


class Racing:
    """The actions of CarRacing. The game itself needs its packages."""

    actions = 3

    def squash(self, raw: Tensor) -> Tensor:
        steer, gas, brake = raw.tanh().unbind(-1)
        return torch.stack((steer, (gas + 1) / 2, brake.clamp(min=0)), -1)


class Dodging:
    """The actions of Doom."""

    actions = 1

    def squash(self, raw: Tensor) -> Tensor:
        return raw.tanh().round()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: set[str]):
        self.packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in self.packages:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (Empty,), {})

        module.__getattr__ = attribute  # type: ignore[method-assign]


def replace_missing() -> list[str]:
    """Replace the missing packages, and return their names."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        sys.meta_path.append(_Finder(set(missing)))
        from wm.envs import GAMES

        GAMES.update({"car-racing": f"{__name__}:Racing", "doom": f"{__name__}:Dodging"})
    return missing
