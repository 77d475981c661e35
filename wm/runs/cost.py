"""The cost of a stage: time, steps, CPU hours and GPU hours."""

from dataclasses import dataclass

from wm.runs.manifest import Manifest


@dataclass(frozen=True)
class StageCost:
    stage: str
    seconds: float  # of all jobs that worked on it
    steps: int
    unit: str
    cpu_hours: float
    gpu_hours: float


def cost_of(manifest: Manifest) -> StageCost:
    metrics, made = manifest.metrics, manifest.made
    seconds = float(made["seconds"])
    training = manifest.stage in ("vision", "memory")
    cpus = manifest.config[f"{manifest.stage}.threads"] if training else made["cpus"]
    counted = (("env_steps", "game steps"), ("frames", "frames"), ("steps", "updates"))
    steps, unit = next(((int(metrics[name]), unit) for name, unit in counted if name in metrics), (0, ""))
    if manifest.stage == "collect":
        unit = "game steps"
    gpu_hours = seconds / 3600 if metrics.get("device") == "cuda" else 0.0
    return StageCost(manifest.stage, seconds, steps, unit, seconds * cpus / 3600, gpu_hours)
