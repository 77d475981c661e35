"""CUDA tensors without a GPU: devices, shapes and types are checked, numbers are not computed.

torch's FakeTensorMode refuses cuda in a CPU build; a device guard of one line, compiled here, changes that. Gradients
are made up, since autograd needs a real device. cuDNN, recorded graphs and the numbers need a real GPU: tests/gpu.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = "cuda:0"
GUARD = """#include <c10/core/impl/DeviceGuardImplInterface.h>
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>)
"""


@cache
def _load_guard() -> str:
    """Why there are no fake CUDA tensors here; empty if there are."""
    if torch.version.cuda is not None:
        return "torch has CUDA: tests/gpu are the real tests"
    compiler, torch_folder = shutil.which("g++"), Path(torch.__file__).parent
    if compiler is None:
        return "there is no g++"
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(GUARD)
        options = ("-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", f"-L{torch_folder}/lib", "-lc10")
        subprocess.run([compiler, source, "-o", library, *options], check=True, capture_output=True)
        ctypes.CDLL(str(library))
    return ""


class Watch(TorchDispatchMode):
    """Notes copies between host and device, and all types that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters: list[nn.Parameter] = []  # that Tensor.backward gives gradients to
        self.forget()

    def forget(self) -> None:
        self.blocking: list[str] = []  # copies that wait: without non_blocking, or from memory that is not pinned
        self.copies: list[str] = []  # all others
        self.types: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.name()
        if name.startswith("aten::_fused_adam_"):  # it has no fake implementation
            return _check_fused(*args[:4])
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self.types.setdefault(name, set()).add(result.dtype)
        if name in ("aten::_to_copy", "aten::copy_"):
            into, source = (result, args[0]) if name == "aten::_to_copy" else args[:2]
            if {into.device.type, source.device.type} == {"cpu", "cuda"} and source.dim() + source.numel():
                waits = not (kwargs.get("non_blocking") or (args[2:] and args[2]))
                pageable = source.device.type == "cpu" and not getattr(source, "pinned", False)
                note = f"{tuple(source.shape)} {source.device.type} to {into.device.type}"
                (self.blocking if waits or pageable else self.copies).append(note)
        return result


def _check_fused(*lists: list[Tensor]) -> None:
    """What CUDA's fused Adam requires of parameters, gradients and both moments."""
    for tensors in zip(*lists, strict=True):
        assert len({(x.device, x.dtype, x.shape, x.stride()) for x in tensors}) == 1, [x.stride() for x in tensors]


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Tensors on DEVICE are fake inside; skips the test where that is impossible."""
    if reason := _load_guard():
        pytest.skip(f"no fake CUDA tensors: {reason}")
    watch, mode = Watch(), FakeTensorMode(allow_non_fake_inputs=True)
    mode.cache_enabled = False  # torch crashed once while it made a key for its cache

    def pinned(self: Tensor) -> Tensor:
        copied = self.clone() if isinstance(self, FakeTensor) else mode.from_tensor(self)
        copied.pinned = True  # type: ignore[attr-defined]
        return copied

    def backward(self: Tensor) -> None:
        assert self.device.type == "cuda", self.device
        assert self.requires_grad
        for parameter in watch.parameters:
            parameter.grad = torch.empty_like(parameter)

    def grad(loss: Tensor, parameters: Iterable[nn.Parameter], retain_graph: bool) -> list[Tensor]:
        assert loss.device.type == "cuda", loss.device
        return [torch.empty(one.shape, device=one.device) for one in parameters]  # in another layout than channels-last

    def moved(module: nn.Module, device: torch.device | str) -> nn.Module:  # the real one changes parameters in place
        for part in module.modules():
            for name, parameter in part._parameters.items():
                assert parameter is not None
                part._parameters[name] = nn.Parameter(parameter.detach().to(device))
        return module

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(nn.Module, "to", moved)
    monkeypatch.setattr("wm.training.learner.read_ahead", lambda items: items)  # modes are those of one thread
    with mode, watch:
        yield watch
