"""An update of a training as one CUDA graph.

V's update has about 200 kernels of a few microseconds each, so launching them one by one takes most of its time. A
recorded graph launches all of them at once. It computes the same as `update`, on the same memory in each step.
"""

from collections import deque
from typing import Protocol

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]  # of fixed shapes

WARM_UP = 3  # updates before the recording, which are undone: libraries choose kernels and allocate memory in them
QUEUED = 4  # updates that may wait for the GPU; more would only hold more pinned batches


class Updating(Protocol):
    """The part of a learner that is recorded."""

    def on_device(self, batch: Batch) -> Batch: ...

    def state(self) -> dict[str, Tensor]: ...

    def update(self, batch: Batch) -> dict[str, Tensor]: ...


class Recording:
    """Does the learner's updates, recorded with this batch's shapes."""

    def __init__(self, learner: Updating, batch: Batch):
        self.queued: deque[torch.cuda.Event] = deque()
        self.batch = learner.on_device(batch)
        before = {name: value.clone() for name, value in learner.state().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                learner.update(self.batch)
        torch.cuda.current_stream().wait_stream(stream)
        for name, value in learner.state().items():
            if name in before:
                value.copy_(before[name])
            else:
                value.zero_()  # the optimiser's state, which its first update creates
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            losses = learner.update(self.batch)
            self.losses = torch.stack([value.float() for value in losses.values()])
        self.names = list(losses)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        if len(self.queued) == QUEUED:
            self.queued.popleft().synchronize()
        for into, part in zip(self.batch, batch, strict=True):
            into.copy_(part, non_blocking=True)
        self.graph.replay()
        self.queued.append(torch.cuda.Event())
        self.queued[-1].record()
        return dict(zip(self.names, self.losses.clone().unbind(), strict=True))  # the next update overwrites them
