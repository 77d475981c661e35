"""The agent that a run has come to so far, an evolution that is still under way included."""

from wm.agents.artifacts import load_memory, load_theta, load_vision
from wm.agents.trained import Trained, has_decoder
from wm.dream.starts import first_frames
from wm.errors import UserError
from wm.runs.checkpoints import unpack
from wm.runs.run import Manifest, Run
from wm.runs.status import StageStatus, stage_statuses


def best_agent(run: Run) -> Trained:
    """V and M as far as they got, and the best-validated C. M comes along even where C doesn't need it."""
    stations = {station.stage: station for station in stage_statuses(run)}
    seeing = need(run, stations["vision"])
    vision, decodes = load_vision(seeing), has_decoder(seeing)
    memory, starts = None, None
    if stations["memory"].manifest is not None or run.config.controller.inputs != "z":
        memory = load_memory(need(run, stations["memory"]), vision.z)
    if (latents := stations["latents"].manifest) is not None:
        starts = first_frames(latents)
    evolve = stations["evolve"]
    if evolve.manifest is not None:
        theta, digest = load_theta(evolve.manifest), evolve.manifest.digest
        return Trained(run.config, vision, memory, theta, starts, {}, "evolve", digest, decodes)
    validated = [row for row in evolve.rows(run) if "validation" in row]
    for row in sorted(validated, key=lambda row: row["validation"], reverse=True):
        data = run.storage.get(f"{evolve.folder}/means/{int(row['generation']):06d}.safetensors")
        if data is not None:
            theta = unpack(data)[0]["theta"].numpy()
            return Trained(run.config, vision, memory, theta, starts, {}, "evolve", row["theta_sha256"], decodes)
    raise UserError(
        f"no validated C in {run.uri} yet: run `python -m jobs.{evolve.job} --run {run.uri}`, at least until its first"
        " validation"
    )


def need(run: Run, station: StageStatus) -> Manifest:
    """The furthest that this stage got, or the Mistake that names the job which gets there."""
    if station.manifest is None:
        raise UserError(f"no complete {station.stage} in {run.uri}: run `python -m jobs.{station.job} --run {run.uri}`")
    return station.manifest
