"""Encode all frames of the rollouts with V: (mu, logvar) in Parquet shards. M never sees pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_vision
from wm.models.vision import Vision, encode_in_batches
from wm.pool import Pool
from wm.runs.datasets import latents_of, rollouts_of
from wm.runs.manifest import Manifest
from wm.runs.reader import pack
from wm.runs.run import Run, open_existing
from wm.runs.shards import MIRRORED, DataSet, ShardWriter, latent_schema, vector_column
from wm.runs.storage import open_storage, sha256
from wm.stages.sharding import make_shards, record, restore


def encode_rollouts(run: Run, pool: Pool) -> Manifest:
    """Latents of all episodes, and a file with those of their first frames, from which dreams start."""
    config, vision, collected = run.config, run.need("vision"), run.need("collect")
    stage, data = run.stage("latents"), rollouts_of(collected)
    work = EncodeWork(
        config.game,
        config.latents.mirrored,
        config.threads,
        run.uri,
        stage.key("shards"),
        load_vision(vision).encoder_only(),
        data,
        _already_encoded(run, collected, vision),
    )
    done = stage.complete(collected.extent)
    if done is not None:
        restore(done, run, stage, work, pool)
        return done
    stage.begin()
    data.verify()
    records = make_shards(run, stage, work, pool, len(data.files))
    first = [record.pop("first") for record in records]  # a list of (mu, logvar) for each episode
    starts = torch.tensor([pair for shard in first for pair in shard])  # (E, 2, Z)
    packed = pack({"mu": starts[:, 0], "logvar": starts[:, 1]}, {})
    key = stage.key(f"starts-{sha256(packed)[:12]}.safetensors")
    run.storage.commit(key, packed)
    return stage.commit(
        collected.extent,
        inputs={"collect": collected.digest, "vision": vision.digest},
        content={"shards": records, "starts": key, "files": {key: sha256(packed)}},
        metrics={
            "frames": sum(sum(record["lengths"]) for record in records),
            "bytes": sum(record["bytes"] for record in records),
        },
    )


def _already_encoded(run: Run, collected: Manifest, vision: Manifest) -> DataSet:
    """Latents of the first shards, which the collecting agent's run already has if V was not trained since."""
    if "earlier" not in collected.content:
        return DataSet([])
    earlier = open_existing(collected.config["collect.agent"]).stage("latents", of=vision.digest).manifest()
    same = (
        earlier is not None
        and earlier.inputs.get("collect") == collected.content["earlier"]  # an unpacked agent has no rollouts
        and earlier.config["latents.mirrored"] == run.config.latents.mirrored
    )
    return latents_of(earlier) if earlier and same else DataSet([])


@dataclass(frozen=True)
class EncodeWork:
    """Encode one shard of frames into one shard of latents."""

    game: str
    mirrored: bool
    threads: int
    uri: str
    folder: str
    vision: Vision
    data: DataSet
    encoded: DataSet = DataSet([])  # latents of the first shards, if they exist

    def build(self) -> Callable[[int], dict[str, Any]]:
        storage, encoder = open_storage(self.uri), self.vision.encoding()

        @torch.inference_mode()
        def encode(frames: np.ndarray) -> list[np.ndarray]:
            return [part.numpy() for part in encode_in_batches(encoder, torch.from_numpy(frames.copy()))]

        def do(unit: int) -> dict[str, Any]:
            data, first = self._copy(unit) if unit < len(self.encoded.files) else self._make(unit, encode)
            key = f"{self.folder}/{unit:06d}.parquet"
            storage.put(key, data)  # the same bytes, if it already exists
            return record(key, data, self.data.files[unit].shard.lengths, first=first)

        return do

    def _make(self, unit: int, encode: Callable[[np.ndarray], list[np.ndarray]]) -> tuple[bytes, list[Any]]:
        """A shard, and (mu, logvar) of each episode's first frame."""
        file = self.data.files[unit]
        episodes = [number for number, (other, _) in enumerate(self.data.episodes) if other is file]
        writer, first = None, []
        for episode in episodes:
            columns = self.data.read(
                episode, ["episode", "step", "frame", "action", "reward", "terminated", "truncated"]
            )
            frames, action = columns.pop("frame"), columns.pop("action")
            latents = dict(zip(("mu", "logvar"), encode(frames), strict=True))  # (T, Z) each
            first.append([latents["mu"][0].tolist(), latents["logvar"][0].tolist()])
            if self.mirrored:
                latents |= zip(MIRRORED, encode(frames[:, :, ::-1]), strict=True)
            about = {"game": self.game}
            writer = writer or ShardWriter(latent_schema(latents, latents["mu"].shape[1], action.shape[1], about))
            vectors = {name: vector_column(values) for name, values in (latents | {"action": action}).items()}
            writer.add(columns | vectors)
        assert writer is not None, file
        return writer.finish(), first

    def _copy(self, unit: int) -> tuple[bytes, list[Any]]:
        """Like `_make`, but from the existing latents."""
        file = self.encoded.files[unit]
        data = file.storage.get(file.shard.key)
        if data is None or sha256(data) != file.shard.sha256:
            raise file.error("is missing or damaged")
        latents = DataSet([file])
        seen = [latents.read(episode, ["mu", "logvar"]) for episode in range(len(file.shard.lengths))]
        return data, [[columns["mu"][0].tolist(), columns["logvar"][0].tolist()] for columns in seen]
