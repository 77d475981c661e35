"""The whole method, stage by stage: `python -m jobs.pipeline PRESET --run URI`."""

from jobs.runner import stage_job
from wm.pipeline import STAGES, pipeline

if __name__ == "__main__":
    stage_job("pipeline", __doc__, pipeline, count=lambda config: len(STAGES))
