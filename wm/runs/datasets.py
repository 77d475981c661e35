"""The data sets that manifests name: rollouts and latents."""

from wm.errors import UserError
from wm.runs.manifest import Manifest
from wm.runs.run import open_existing
from wm.runs.shards import DataSet, File, Shard


def shards_of(manifest: Manifest) -> list[Shard]:
    return [
        Shard(record["key"], record["sha256"], record["bytes"], tuple(record["lengths"]))
        for record in manifest.content["shards"]
    ]


def _data_set(manifest: Manifest) -> DataSet:
    cure = f"python -m jobs.{manifest.stage} --run {manifest.storage.uri}"
    return DataSet(File(manifest.storage, shard, cure) for shard in shards_of(manifest))


def latents_of(latents: Manifest) -> DataSet:
    """The latents of all episodes."""
    return _data_set(latents)


def own_rollouts(collected: Manifest) -> DataSet:
    """The episodes that this stage collected."""
    return _data_set(collected)


def rollouts_of(collected: Manifest) -> DataSet:
    """All episodes to train on: those that the collecting agent was trained on, then its own."""
    own = _data_set(collected)
    if "earlier" not in collected.content:
        return own
    agent = open_existing(collected.config["collect.agent"])
    earlier = agent.need("collect")
    if earlier.digest != collected.content["earlier"]:
        raise UserError(
            f"the rollouts in {agent.uri} changed after its agent collected for {collected.storage.uri}: start another"
            " run"
        )
    return DataSet([*rollouts_of(earlier).files, *own.files])
