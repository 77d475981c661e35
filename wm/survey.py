"""What a run holds: each stage of the pipeline, how far it is, and what to do next."""

from dataclasses import dataclass

from wm.run import Manifest, Run


@dataclass(frozen=True)
class Station:
    """A stage as it stands."""

    stage: str
    job: str  # that completes it
    wanted: int
    unit: str
    manifest: Manifest | None  # the furthest one
    bytes: int  # of all its files, those of unfinished work included

    @property
    def complete(self) -> bool:
        return self.manifest is not None and self.manifest.extent >= self.wanted


def survey(run: Run) -> list[Station]:
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
    sizes = run.place.sizes()
    stations: dict[str, Station] = {}
    for name, job, wanted, unit, made_of in plan:
        source = stations[made_of] if made_of else None
        manifest, bytes_ = None, 0
        if source is None or source.manifest is not None:
            stage = run.stage(name, of=source.manifest.digest if source and source.manifest else None)
            manifest = stage.manifest()
            bytes_ = sum(size for key, size in sizes.items() if key.startswith(stage.folder + "/"))
        stations[name] = Station(name, job, wanted, unit, manifest, bytes_)
    return list(stations.values())
