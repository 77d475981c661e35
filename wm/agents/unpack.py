"""A run made from an agent file: its V, M and C become complete stages.

The run can then be extended: evolve C further, collect rollouts with it, dream in its M. The file has no rollouts; the
stages that hold them are complete and empty.
"""

from typing import Any

import torch

from wm.agents.card_schema import CARD
from wm.agents.trained import Trained
from wm.errors import UserError
from wm.runs.cures import AGENT_FILE
from wm.runs.manifest import Manifest
from wm.runs.reader import pack, read, sealed
from wm.runs.run import Run, open_run, start_run
from wm.runs.storage import Storage, open_storage, sha256
from wm.schemas import HASH, record

AGENT = record({"digest": HASH, "card": CARD})
CURE = "delete it and run `python -m jobs.unpack` with the same agent again"


def unpack(trained: Trained, uri: str) -> Run:
    """The run at this URI, created if it does not exist."""
    storage, existing = open_storage(uri), open_run(uri)
    if existing is not None and _agent_in(existing) != trained.digest:
        raise UserError(f"{uri} holds another run: unpack the agent into a new folder")
    storage.put(AGENT_FILE, sealed({"digest": trained.digest, "card": trained.card}, AGENT_FILE))
    known = trained.card.get("runs", [])
    run = start_run(uri, known[-1]["preset"] if known else "", trained.config)
    metrics = {made["stage"]: made["metrics"] for one in known for made in one["made"]}  # the last of each stage counts
    inputs = {"agent": trained.digest}

    def complete(
        name: str, of: Manifest | None = None, tensors: Any = None, role: str = "", **content: Any
    ) -> Manifest:
        stage, named = run.stage(name, of=of.digest if of else None), dict(content)
        if tensors is not None:
            data = pack(tensors, {})
            key = stage.key(f"agent-{sha256(data)[:12]}.safetensors")
            run.storage.commit(key, data)
            named |= {role: key, "files": {key: sha256(data)}}
        return stage.complete() or stage.commit(
            stage.wanted, inputs=inputs, content=named, metrics=metrics.get(name, {})
        )

    metrics["collect"] = metrics["latents"] = {"frames": 0, "bytes": 0}
    complete("collect", shards=[])
    weights = trained.vision.state_dict()
    made = vision = complete("vision", tensors=weights, role="weights", decodes=trained.decodes)
    if trained.memory is not None:
        tensors = trained.memory.state_dict()
        made = complete("memory", vision, tensors, "weights")
    if (starts := trained.starts) is not None:
        tensors = {"mu": torch.from_numpy(starts.mu), "logvar": 2 * torch.from_numpy(starts.sigma).log()}
        complete("latents", vision, tensors, "starts", shards=[])
    complete("evolve", made, {"theta": torch.from_numpy(trained.theta)}, "theta")
    return run


def read_agent(storage: Storage) -> dict[str, Any] | None:
    """The digest and the card of the agent that the run was made from, if any."""
    return read(storage, AGENT_FILE, AGENT, CURE)


def _agent_in(run: Run) -> str | None:
    """The digest of the agent that the run was made from, also if agent.json was deleted."""
    found = read_agent(run.storage)
    made = run.stage("collect").manifest() if found is None else None
    return found["digest"] if found else made.inputs.get("agent") if made else None


def carried_card(manifest: Manifest) -> dict[str, Any] | None:
    """The card of the agent that this stage was unpacked from, if it was."""
    if "agent" not in manifest.inputs:
        return None
    found = read_agent(manifest.storage) or {"card": {}}
    return {"env_steps": 0, "runs": []} | found["card"]
