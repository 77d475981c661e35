"""What a run holds: each stage of the pipeline, how far it is, and what to do next."""

import json
from dataclasses import dataclass
from typing import Any

from wm.runs.run import Manifest, Run, number_in


@dataclass(frozen=True)
class StageStatus:
    """A stage as it stands."""

    stage: str
    job: str  # that completes it
    wanted: int
    unit: str
    manifest: Manifest | None  # the furthest one
    begun: int  # where its last checkpoint is
    bytes: int  # of all its files, those of unfinished work included
    folder: str  # where they are; empty where it can't have begun

    @property
    def complete(self) -> bool:
        return self.manifest is not None and self.manifest.extent >= self.wanted

    def rows(self, run: Run) -> list[dict[str, Any]]:
        """Its curves as far as they go, of unfinished work, too: what metrics.jsonl says, a row a measurement."""
        storage = self.manifest.storage if self.manifest else run.storage
        data = storage.get(f"{self.folder}/metrics.jsonl") if self.folder else None
        return [json.loads(line) for line in (data or b"").decode().splitlines()]


def stage_statuses(run: Run) -> list[StageStatus]:
    """All stages in their order. One whose input is missing can't have begun."""
    config = run.config
    memory_counts = config.controller.inputs != "z" or config.evolve.where == "dream"
    plan = [
        ("collect", "collect", config.collect.episodes, "episodes", None),
        ("vision", "train_vision", config.vision.steps, "steps", None),
        ("latents", "encode", config.collect.episodes, "episodes", "vision"),
        ("memory", "train_memory", config.memory.steps, "steps", "vision"),
        ("evolve", "evolve", config.evolve.generations, "generations", "memory" if memory_counts else "vision"),
        ("score", "score", config.score.episodes, "episodes", "evolve"),
    ]
    sizes = run.storage.sizes()
    stations: dict[str, StageStatus] = {}
    for name, job, wanted, unit, made_of in plan:
        source = stations[made_of] if made_of else None
        manifest, folder, own = None, "", {}
        if source is None or source.manifest is not None:
            stage = run.stage(name, of=source.manifest.digest if source and source.manifest else None)
            manifest, folder = stage.manifest(), stage.folder
            own = {key: size for key, size in sizes.items() if key.startswith(folder + "/")}
        begun = max((number_in(key, "step") for key in own), default=0)
        stations[name] = StageStatus(name, job, wanted, unit, manifest, begun, sum(own.values()), folder)
    return list(stations.values())
