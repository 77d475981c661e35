"""A run made of an agent's file, the way back from `wm.trained.export`: its V, M and C as complete stages.

So who has the file alone can go on from it: evolve C further, let it drive for a round of data, dream in its M. Its
rollouts don't come with it; the stages that hold them are complete and empty.
"""

import json
from typing import Any

import torch

from wm.agents.trained import Trained
from wm.errors import UserError
from wm.runs.checkpoints import pack
from wm.runs.run import Manifest, Run, open_run, start_run
from wm.runs.storage import at, sha256, to_json

CAME_WITH = "agent.json"  # beside the config: the agent's digest and card


def unpack(trained: Trained, uri: str) -> Run:
    """The run in that place, begun if need be."""
    came_with = to_json({"digest": trained.digest, "card": trained.card})
    storage = at(uri)
    if open_run(uri) is not None and storage.get(CAME_WITH) != came_with:
        raise UserError(f"{uri} holds another run: unpack the agent into a place of its own")
    storage.put(CAME_WITH, came_with)
    known = trained.card.get("runs", [])
    run = start_run(uri, known[-1]["preset"] if known else "", trained.config)
    metrics = {made["stage"]: made["metrics"] for one in known for made in one["made"]}  # the last of each counts
    config, inputs = run.config, {"agent": trained.digest}

    def complete(
        name: str, extent: int, of: Manifest | None = None, tensors: Any = None, role: str = "", **content: Any
    ) -> Manifest:
        stage, named = run.stage(name, of=of.digest if of else None), dict(content)
        if tensors is not None:
            data = pack(tensors, {})
            key = stage.key(f"agent-{sha256(data)[:12]}.safetensors")
            run.storage.commit(key, data)
            named |= {role: key, "files": {key: sha256(data)}}
        found = stage.complete(extent)
        return found or stage.commit(extent, inputs=inputs, content=named, metrics=metrics.get(name, {}))

    metrics["collect"] = metrics["latents"] = {"frames": 0, "bytes": 0}
    complete("collect", config.collect.episodes, shards=[])
    made = vision = complete(
        "vision",
        config.vision.steps,
        tensors=trained.vision.state_dict(),
        role="weights",
        decodes=trained.decodes,
    )
    if trained.memory is not None:
        tensors = trained.memory.state_dict()
        made = complete("memory", config.memory.steps, vision, tensors, "weights")
    if (starts := trained.starts) is not None:
        tensors = {"mu": torch.from_numpy(starts.mu), "logvar": 2 * torch.from_numpy(starts.sigma).log()}
        complete("latents", config.collect.episodes, vision, tensors, "starts", shards=[])
    complete("evolve", config.evolve.generations, made, {"theta": torch.from_numpy(trained.theta)}, "theta")
    return run


def card_with(manifest: Manifest) -> dict[str, Any] | None:
    """The card of the agent that this came with, if it came with one."""
    if "agent" not in manifest.inputs:
        return None
    found: dict[str, Any] = json.loads(manifest.storage.get(CAME_WITH) or b"{}")
    return {"env_steps": 0, "runs": []} | found.get("card", {})
