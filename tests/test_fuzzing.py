"""Fuzzing: a few trials of each campaign in `make test`, thousands in `make fuzz`. The rule is in tests/fuzzing."""

import json
import random
from pathlib import Path

import pytest
from fuzzing.campaigns import AgentCampaign, LineCampaign, RunCampaign, Tally
from fuzzing.damage import STRANGE, damage_agent, edit_value
from fuzzing.trials import Outcome, run_job

from wm.runs.run import Run


@pytest.fixture(scope="module")
def agent(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "it.safetensors"
    assert run_job("export", "--run", tiny.uri, "--to", path).code == 0
    return path


@pytest.mark.timeout(900)
def test_a_damaged_run(tiny: Run, tmp_path: Path) -> None:
    campaign, tally = RunCampaign(Path(tiny.uri), tmp_path), Tally()
    for seed in range(12):
        campaign.trial(seed, tally)
    assert tally.broken == []


def test_a_damaged_agent_file(agent: Path, tmp_path: Path) -> None:
    campaign, tally = AgentCampaign(agent, tmp_path), Tally()
    for seed in range(40):
        campaign.trial(seed, tally)
    assert tally.broken == []
    assert tally.ends["refused"] > 20


@pytest.mark.timeout(900)
def test_odd_command_lines(tiny: Run, agent: Path, tmp_path: Path) -> None:
    campaign, tally = LineCampaign(Path(tiny.uri), agent, tmp_path), Tally()
    for seed in range(40):
        campaign.trial(seed, tally)
    assert tally.broken == []


@pytest.mark.parametrize(
    ("outcome", "broken"),
    [
        (Outcome(0, "{}", "", 0.1), ""),
        (Outcome(2, "", "no run in x: start one\n", 0.1), ""),
        (Outcome(1, "", "12:00:01 stage 1\nfailed: x\nCompleted work is kept\n", 0.1), ""),
        (Outcome(2, "", "", 0.1), "0 lines"),
        (Outcome(2, "", "a\nb\nc\n", 0.1), "3 lines"),
        (Outcome(1, "", "", 0.1, trace="Traceback ..."), "traceback"),
        (Outcome(0, "", "", 0.1, hung=True), "hang"),
        (Outcome(-9, "", "", 0.1), "exit code -9"),
    ],
)
def test_the_rule_fails_for_what_breaks_it(outcome: Outcome, broken: str) -> None:
    assert outcome.broken_rule() == broken


def test_trials_follow_from_their_seeds(agent: Path) -> None:
    data = agent.read_bytes()
    found = [damage_agent(data, random.Random(seed)) for seed in (1, 2, 1)]
    assert found[0] == found[2] != found[1]


def test_values_are_edited() -> None:
    """Also with what no JSON of the project contains."""
    before = {"a": 1, "b": {"c": [1, 2.5, "x"]}}
    edited = []
    for seed in range(200):
        values = json.loads(json.dumps(before))
        edit_value(values, random.Random(seed))
        edited.append(values)
    assert sum(values != before for values in edited) > 150
    assert any(repr(one) in repr(edited) for one in STRANGE[-8:])
