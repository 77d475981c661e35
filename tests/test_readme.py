"""What the README tells people to type works: its Python as it stands, its jobs by their names and flags."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT, SECONDS

from wm.agents.files import export_agent
from wm.agents.trained import of_run
from wm.config.fields import leaves
from wm.config.presets import PRESETS
from wm.runs.run import Run

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"python -m jobs\.(\w+)([^`|\n]*)", README)


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: re.findall(r"\w+", code)[1])
def test_its_python_runs(code: str, tiny: Run, tmp_path: Path) -> None:
    """With an agent and a run where it says that they are."""
    (tmp_path / "agent.safetensors").write_bytes(export_agent(of_run(tiny), half=True)[0])
    shutil.copytree(tiny.uri, tmp_path / "runs" / "demo")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_it_names_every_job_and_none_that_is_not_there() -> None:
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__", "command_line", "display", "manners"}
    assert {name for name, _ in COMMANDS} == jobs


def test_its_flags_and_presets_exist() -> None:
    own = {"--run", "--base", "--in", "--local", "--address", "--take-over", "--rounds", "--tau", "--runs", "--to"}
    own |= {"--half", "--cpus", "--gpus", "--price-cpu", "--price-gpu", "--agent", "--resume", "--seeds"}
    known = {"--" + ".".join(path).replace("_", "-") for path in leaves(PRESETS["tiny"])}
    short = {"--" + flag.rpartition(".")[2] for flag in known}
    for name, words in COMMANDS:
        for flag in re.findall(r"--[a-z][\w.-]*", words):
            assert flag.rstrip(".") in own | known | short, (name, flag)
        for preset in re.findall(rf"^ (?:\w+ )?({'|'.join(map(re.escape, PRESETS))})\b", words):
            assert preset in PRESETS
