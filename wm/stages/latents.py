"""Every frame of the rollouts as V sees it: (mu, logvar), in shards beside the frames'. M never touches pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_vision
from wm.config.schema import Config
from wm.models.vision import Vision
from wm.pool import Pool
from wm.runs import storage as places
from wm.runs.checkpoints import pack
from wm.runs.datasets import data_set, rollouts
from wm.runs.run import Manifest, Run, open_existing
from wm.runs.shards import MIRRORED, DataSet, ShardWriter, latent_schema, vector_column
from wm.runs.storage import sha256
from wm.stages.sharding import make_shards, record, restore


def encode(config: Config, run: Run, pool: Pool) -> Manifest:
    """Latents of all episodes, and the first frames' beside them, from which dreams start."""
    vision = run.need("vision", config.vision.steps, "train_vision")
    made = run.need("collect", config.collect.episodes, "collect")
    stage = run.stage("latents", of=vision.digest)
    data = rollouts(made)
    work = Encode(config, run.uri, stage.folder, load_vision(vision).encoder_only(), data, _known(config, made, vision))
    done = stage.complete(made.extent)
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
        made.extent,
        inputs={"collect": made.digest, "vision": vision.digest},
        content={"shards": records, "starts": key, "files": {key: sha256(packed)}},
        metrics={
            "frames": sum(sum(record["lengths"]) for record in records),
            "bytes": sum(record["bytes"] for record in records),
        },
    )


def _known(config: Config, rollouts: Manifest, vision: Manifest) -> DataSet:
    """Latents of the first shards, which the run of the agent that drove has already if V was not trained since."""
    if "earlier" not in rollouts.content:
        return DataSet([])
    there = open_existing(rollouts.config["collect.agent"]).stage("latents", of=vision.digest).manifest()
    same = (
        there is not None
        and there.inputs.get("collect") == rollouts.content["earlier"]  # an unpacked agent's are of none
        and there.config["latents.mirrored"] == config.latents.mirrored
    )
    return data_set(there, "encode") if there and same else DataSet([])


@dataclass(frozen=True)
class Encode:
    """Encode one shard of frames into one shard of latents."""

    config: Config
    uri: str
    folder: str
    vision: Vision
    data: DataSet
    known: DataSet = DataSet([])  # the first of them, encoded already

    @property
    def threads(self) -> int:
        return self.config.threads

    def build(self) -> Callable[[int], dict[str, Any]]:
        storage = places.at(self.uri)

        def do(unit: int) -> dict[str, Any]:
            data, first = self._take_over(unit) if unit < len(self.known.files) else self._make(unit)
            key = f"{self.folder}/{unit:06d}.parquet"
            storage.put(key, data)  # the same bytes, should it be there already
            return record(key, data, self.data.files[unit].shard.lengths, first=first)

        return do

    def _make(self, unit: int) -> tuple[bytes, list[Any]]:
        """A shard, and (mu, logvar) of each episode's first frame."""
        file = self.data.files[unit]
        episodes = [number for number, (other, _) in enumerate(self.data.episodes) if other is file]
        writer, first = None, []
        for episode in episodes:
            columns = self.data.read(
                episode, ["episode", "step", "frame", "action", "reward", "terminated", "truncated"]
            )
            frames, action = columns.pop("frame"), columns.pop("action")
            latents = dict(zip(("mu", "logvar"), self._encode(frames), strict=True))  # (T, Z) each
            first.append([latents["mu"][0].tolist(), latents["logvar"][0].tolist()])
            if self.config.latents.mirrored:
                latents |= zip(MIRRORED, self._encode(frames[:, :, ::-1]), strict=True)
            about = {"game": self.config.game}
            writer = writer or ShardWriter(latent_schema(latents, latents["mu"].shape[1], action.shape[1], about))
            vectors = {name: vector_column(values) for name, values in (latents | {"action": action}).items()}
            writer.add(columns | vectors)
        assert writer is not None, file
        return writer.finish(), first

    def _take_over(self, unit: int) -> tuple[bytes, list[Any]]:
        """The same, made before."""
        file = self.known.files[unit]
        data = file.storage.get(file.shard.key)
        if data is None or sha256(data) != file.shard.sha256:
            raise file.bad("is missing or damaged")
        latents = DataSet([file])
        seen = [latents.read(episode, ["mu", "logvar"]) for episode in range(len(file.shard.lengths))]
        return data, [[columns["mu"][0].tolist(), columns["logvar"][0].tolist()] for columns in seen]

    @torch.inference_mode()
    def _encode(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        encode = self.vision.encoding()
        parts = [encode(part) for part in torch.from_numpy(frames.copy()).split(self.config.latents.batch)]
        mu, logvar = (torch.cat(part).numpy() for part in zip(*parts, strict=True))  # (T, Z) each
        return mu, logvar
