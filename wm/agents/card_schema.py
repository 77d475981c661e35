"""The schema of a card, as agent files and the runs made from them hold it."""

from wm.runs.stages import STAGES
from wm.schemas import integer, mapping, measured, number, one_of, plain, record, sequence, text

WORD = text(longest=500)
MADE = record(
    {
        "stage": one_of(*STAGES),
        "digest": WORD,
        "seconds": number(0),
        "code": WORD,
        "processor": WORD,
        "versions": mapping(WORD),
        "config": mapping(plain),
        "metrics": mapping(measured),
    },
    {"cpus": integer()},
)
RUN = record({"preset": WORD, "made": sequence(MADE)}, {"name": WORD})
CARD = record({}, {"env_steps": integer(), "runs": sequence(RUN)})
