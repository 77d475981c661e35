"""Compares the disk space that a stage needs with the free space when it starts."""

import logging

from wm.config.schema import Config
from wm.errors import UserError
from wm.formatting import format_bytes
from wm.pool import Progress
from wm.runs.stages import STAGES
from wm.runs.storage import Storage

log = logging.getLogger(__name__)


class DiskSpaceCheck:
    """Checks each stage once, at its first progress report."""

    def __init__(self, config: Config, storage: Storage):
        self.config, self.storage = config, storage
        self.checked: set[str] = set()

    def tell(self, progress: Progress) -> None:
        if progress.stage not in self.checked and progress.done < progress.total:
            self.checked.add(progress.stage)
            check_disk_space(self.config, self.storage, progress)


def check_disk_space(config: Config, storage: Storage, progress: Progress) -> None:
    """Log the space that the stage needs; raises a UserError if it clearly does not fit."""
    stage = STAGES.get(progress.stage)
    if stage is None:
        return
    missing = 1 - progress.done / progress.total if stage.incremental else 1.0
    needed, free = stage.bytes(config) * missing, storage.free()
    if free is None:
        log.info("%s needs about %s in %s", stage.name, format_bytes(needed), storage.uri)
        return
    log.info("%s needs about %s; %s free in %s", stage.name, format_bytes(needed), format_bytes(free), storage.uri)
    if needed > 2 * free:
        raise UserError(
            f"{stage.name} needs about {format_bytes(needed)}, but {storage.uri} has {format_bytes(free)} free:"
            " free some space, use another folder, or a smaller run"
        )
    if needed > free:
        log.warning("%s may not fit: about %s are missing", stage.name, format_bytes(needed - free))
