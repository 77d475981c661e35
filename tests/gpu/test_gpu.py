"""What only a real GPU can show. `python -m jobs.bench gpu` runs the same checks and measures the speed."""

import pytest

from jobs.benchmarks import gpu_checks as checks
from wm.models.device import problem

pytestmark = pytest.mark.skipif(bool(problem()), reason=problem())


@pytest.mark.parametrize(("name", "precision"), checks.CASES)
def test_trainings_agree_with_the_cpu(name: str, precision: checks.Precision) -> None:
    checks.training_agrees_with_the_cpu(name, precision, "cuda")


@pytest.mark.parametrize(("name", "precision"), checks.CASES)
def test_trainings_repeat_and_resume_bit_for_bit(name: str, precision: checks.Precision) -> None:
    checks.training_repeats(name, precision, "cuda")


def test_the_lstm_keeps_its_precision() -> None:
    checks.lstm_keeps_its_precision("cuda")


def test_a_recorded_dream_is_the_dream() -> None:
    checks.dream_agrees_with_its_recording("cuda")


def test_a_dream_with_box_actions_can_be_recorded() -> None:
    checks.box_actions_can_be_recorded("cuda")
