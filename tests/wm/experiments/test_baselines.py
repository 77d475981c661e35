"""Baselines are measured once, and a changed one is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from wm.experiments import baselines
from wm.experiments.verify import verify
from wm.runs.reader import Damaged
from wm.runs.run import open_existing


def test_a_changed_baseline_is_refused_with_its_cure(
    copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "EPISODES", 2)
    run = open_existing(str(copy()))
    made = baselines.measure(run)
    assert [(one.episodes, one.steps) for one in made] == [(2, 1000)] * 2
    assert baselines.measured(run) == made
    with monkeypatch.context() as patch:
        patch.setattr(baselines, "load", None)  # verifying imports no game
        assert not verify(run).problems
    file = Path(run.uri) / baselines.KEY
    file.write_text(file.read_text().replace("1000", "1001"))
    with pytest.raises(Damaged, match=r"does not match its seal.*: delete it and run `python -m jobs.report --run"):
        baselines.measured(run)
    assert baselines.KEY in "".join(verify(run).problems)
    file.unlink()
    assert baselines.measure(run) == made
