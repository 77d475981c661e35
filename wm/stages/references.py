"""The other runs that a config names, checked before a new run is started and its config frozen."""

from wm.config.schema import Config
from wm.errors import UserError
from wm.runs.run import open_existing
from wm.training.weights import manifest_in


def check_references(config: Config) -> None:
    """Raise a UserError for a run that does not exist or lacks the stage that it is named for."""
    for flag, uri, stage in (
        ("collect.agent", config.collect.agent, "evolve"),
        ("vision.init", config.vision.init, "vision"),
        ("memory.init", config.memory.init, "memory"),
        ("evolve.init", config.evolve.init, "evolve"),
    ):
        if not uri:
            continue
        try:
            if stage == "evolve":
                other = open_existing(uri)
                if other.stage(stage).manifest() is None:
                    raise other.missing(stage)
            else:
                manifest_in(uri, stage)
        except UserError as error:
            raise UserError(f"--{flag}: {error}") from None
