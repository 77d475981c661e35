"""The progress of each stage of a run."""

from dataclasses import dataclass
from typing import Any

from wm.runs.curves import read_curves
from wm.runs.manifest import Manifest
from wm.runs.run import Run, number_in
from wm.runs.stages import STAGES, StageInfo, extent_of


@dataclass(frozen=True)
class StageStatus:
    info: StageInfo
    wanted: int
    manifest: Manifest | None  # the furthest one
    checkpoint: int  # step of its last checkpoint
    bytes: int  # of all its files, including unfinished work
    folder: str  # empty if it can't have begun

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def complete(self) -> bool:
        return self.manifest is not None and self.manifest.extent >= self.wanted

    def need(self, run: Run) -> Manifest:
        """The furthest manifest; raises a UserError that names the job if there is none."""
        if self.manifest is None:
            raise run.missing(self.name)
        return self.manifest

    def rows(self, run: Run) -> list[dict[str, Any]]:
        """Its metrics.jsonl so far, including unfinished work: one row for each evaluation."""
        storage = self.manifest.storage if self.manifest else run.storage
        return read_curves(storage, f"{self.folder}/metrics.jsonl") if self.folder else []


def stage_statuses(run: Run) -> dict[str, StageStatus]:
    """All stages in order. A stage whose input is missing can't have begun."""
    sizes = run.storage.sizes()
    found: dict[str, StageStatus] = {}
    for name, info in STAGES.items():
        source = info.made_of(run.config)
        made_of = found[source].manifest if source else None
        manifest, folder, own = None, "", {}
        if source is None or made_of is not None:
            stage = run.stage(name, of=made_of.digest) if made_of else run.stage(name)
            manifest, folder = stage.manifest(), stage.folder
            own = {key: size for key, size in sizes.items() if key.startswith(folder + "/")}
        checkpoint = max((number_in(key, "step") for key in own), default=0)
        wanted = extent_of(run.config, name)
        found[name] = StageStatus(info, wanted, manifest, checkpoint, sum(own.values()), folder)
    return found
