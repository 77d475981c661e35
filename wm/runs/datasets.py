"""TODO"""

from wm.errors import UserError
from wm.runs.run import Manifest, open_existing
from wm.runs.shards import DataSet, File, Shard


def shards_of(manifest: Manifest) -> list[Shard]:
    return [
        Shard(record["key"], record["sha256"], record["bytes"], tuple(record["lengths"]))
        for record in manifest.content["shards"]
    ]


def data_set(manifest: Manifest, job: str) -> DataSet:
    """The episodes that a manifest vouches for; `job` makes them again, should they be damaged."""
    cure = f"python -m jobs.{job} --run {manifest.storage.uri}"
    return DataSet(File(manifest.storage, shard, cure) for shard in shards_of(manifest))


def rollouts(manifest: Manifest) -> DataSet:
    """All episodes that a complete collect stands for: an agent's come after those it learned from."""
    own = data_set(manifest, "collect")
    if "earlier" not in manifest.content:
        return own
    agent = open_existing(manifest.config["collect.agent"])
    earlier = agent.need("collect", agent.config.collect.episodes, "collect")
    if earlier.digest != manifest.content["earlier"]:
        raise UserError(
            f"the rollouts in {agent.uri} are others than when its agent drove for {manifest.storage.uri}:"
            " start another run"
        )
    return DataSet([*rollouts(earlier).files, *own.files])
