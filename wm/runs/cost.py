"""What a stage took: time, steps, and hours of CPUs and GPUs that were held for it."""

from dataclasses import dataclass

from wm.runs.run import Manifest


@dataclass(frozen=True)
class StageCost:
    stage: str
    seconds: float  # of all jobs that were at it
    steps: int
    unit: str
    cpu_hours: float | None  # None where a run of an older version doesn't say
    gpu_hours: float


def cost_of(manifest: Manifest) -> StageCost:
    metrics, made = manifest.metrics, manifest.made
    seconds = float(made["seconds"])
    training = manifest.stage in ("vision", "memory")
    cpus = manifest.config.get(f"{manifest.stage}.threads") if training else made.get("cpus")
    counted = (("env_steps", "game steps"), ("frames", "frames"), ("steps", "updates"))
    steps, unit = next(((int(metrics[name]), unit) for name, unit in counted if name in metrics), (0, ""))
    if manifest.stage == "collect":
        unit = "game steps"
    return StageCost(
        manifest.stage,
        seconds,
        steps,
        unit,
        seconds * cpus / 3600 if cpus else None,
        seconds / 3600 if metrics.get("device") == "cuda" else 0.0,
    )
