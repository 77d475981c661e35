"""Run all stages: `python -m jobs.pipeline PRESET --run URI`."""

from jobs.runner import stage_job
from wm.pipeline import pipeline
from wm.runs.stages import STAGES

if __name__ == "__main__":
    stage_job("pipeline", __doc__, pipeline, count=lambda config: len(STAGES))
