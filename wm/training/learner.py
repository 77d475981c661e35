"""A model in training: the interface between the training loop and V or M, and the code that they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm.config.schema import Training
from wm.errors import UserError
from wm.runs.ahead import read_ahead
from wm.seeds import derive
from wm.training.recording import Batch, Recording


class Learner(ABC):
    """Wraps a model and its optimisers. All randomness is a function of (seed, name, purpose, number).

    On a GPU the updates never wait for the CPU or the other way round: batches and noise are made ahead in pinned
    memory, losses stay on the device, and an update is one recorded graph (`recorded` False: one kernel at a time).
    """

    newest = False  # whether the last weights are the result instead of those with the lowest held-out loss
    recorded = True

    def __init__(self, name: str, model: nn.Module, section: Training, seed: int, device: str):
        self.name, self.section, self.device = name, section, torch.device(device)
        self.seed = seed + section.seed
        self.model = model.to(device)
        self.optimisers: dict[str, torch.optim.Optimizer] = {"adam": self.adam(model.parameters())}
        self.recording: Recording | None = None

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @abstractmethod
    def host_batches(self, start: int) -> Iterator[Batch]:
        """Batches number start, start + 1, ... with the noise of their updates: pure functions of (seed, number)."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars, including "loss"."""

    @abstractmethod
    def held_out(self) -> Iterator[tuple[Batch, float]]:
        """Held-out batches, on the device, and their weights."""

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches for `step`."""
        batches = self.host_batches(start)
        return read_ahead(map(_pinned, batches)) if self.cuda else batches

    def step(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """One update. Returns its losses, left on the device."""
        self.model.train()
        self.set_rate(number)
        if not (self.cuda and self.recorded):
            return self.update(self.on_device(batch))
        self.recording = self.recording or Recording(self, batch)
        return self.recording(batch)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """The update on a batch on the device, without waiting for it."""
        with self.precision():
            losses = self.losses(batch)
        optimiser = self.optimisers["adam"]
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        self.clip()
        optimiser.step()
        return {name: value.detach() for name, value in losses.items()}

    def clip(self) -> None:  # noqa: B027  (not every model needs it)
        """Clip the gradients before the update."""

    def on_device(self, batch: Batch) -> Batch:
        return tuple(part.to(self.device, non_blocking=True) for part in batch)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Weighted means of the losses on held-out episodes; the best weights have the lowest "loss"."""
        self.model.eval()
        sums: dict[str, float] = {}
        total = 0.0
        for batch, weight in self.held_out():
            with self.precision():
                losses = self.losses(batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) * weight
            total += weight
        return {name: value / total for name, value in sums.items()}

    def check_progress(self, rows: list[dict[str, float]]) -> None:  # noqa: B027
        """Raise a Failure if the evaluations so far show that the training has collapsed."""

    def measures(self) -> dict[str, Any]:
        """Further metrics of the finished model."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Everything that is needed to resume, as one flat dictionary of tensors."""
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, values in optimiser.state_dict()["state"].items():
                state |= {f"{name}.{index}.{field}": value for field, value in values.items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(with_prefix(state, "model"))
        for name, optimiser in self.optimisers.items():
            parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            values: dict[int, dict[str, Tensor]] = {}
            for path, tensor in with_prefix(state, name).items():
                index, _, field = path.partition(".")
                like = parameters[int(index)]
                # The fused optimiser needs the memory format of the parameter, such as channels-last.
                if tensor.shape == like.shape:
                    tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
                values.setdefault(int(index), {})[field] = tensor
            optimiser.load_state_dict(optimiser.state_dict() | {"state": values})

    def weights(self) -> dict[str, Tensor]:
        """The weights of the model."""
        return self.model.state_dict()

    def adam(self, parameters: Iterable[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
        rate = self.section.learning_rate
        optimiser = torch.optim.Adam(parameters, lr=rate, fused=True, capturable=self.cuda, **options)
        if self.cuda:  # a recorded update reads the rate from the device
            for group in optimiser.param_groups:
                group["lr"] = torch.full((), rate, device=self.device)
        return optimiser

    def set_rate(self, number: int) -> None:
        """Constant, then falling with the inverse square root of the step, so that it does not depend on `steps`."""
        rate = self.section.learning_rate * min(1.0, (self.section.decay_steps / max(number, 1)) ** 0.5)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                if self.cuda:
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def generator(self, *purpose: int | str) -> torch.Generator:
        """A generator on the CPU, so that a GPU gets the same numbers."""
        return torch.Generator().manual_seed(derive(self.seed, self.name, *purpose))

    def precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.section.precision == "bfloat16")


def _pinned(batch: Batch) -> Batch:
    return tuple(part.pin_memory() for part in batch)


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of `state` below this prefix, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(prefix + ".")}


def split(count: int, every: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) episodes: one in `every` is held out, by number, so adding episodes does not change it."""
    numbers = np.arange(count)
    if count < 2:
        raise UserError(
            f"training needs 2 or more episodes, since one is held out, got {count}: raise --collect.episodes"
        )
    return numbers[numbers % every != 0], numbers[numbers % every == 0]
