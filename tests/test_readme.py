"""What the README and the guides tell people to type works: their Python as it stands, their jobs, flags and links."""

import re
from pathlib import Path

import pytest
from processes import ROOT, beside_a_run

from jobs.__main__ import jobs
from wm.config.fields import leaves
from wm.config.presets import PRESETS
from wm.runs.run import Run

NAMES = ("cli", "dream", "carracing", "fine-tuning", "your-game", "own-machines")
GUIDES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES)]
TEXT = "\n".join(guide.read_text() for guide in GUIDES)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"python -m jobs\.([a-z_]+)((?:[^`|\n\\]|\\\||\\\n)*)", TEXT)


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: re.findall(r"\w+", code)[1])
def test_the_python_runs(code: str, tiny: Run, tmp_path: Path) -> None:
    """With a run where it says that one is."""
    done = beside_a_run(tiny.uri, tmp_path, code)
    assert done.returncode == 0, done.stderr


def test_every_job_is_described_and_no_other() -> None:
    assert {name for name, _ in COMMANDS} == jobs().keys()


def test_flags_and_presets_exist() -> None:
    own = {"--run", "--base", "--in", "--local", "--address", "--take-over", "--rounds", "--tau", "--runs", "--to"}
    own |= {
        "--half",
        "--check",
        "--search",
        "--searcher",
        "--trials",
        "--stop-early",
        "--cpus-each",
        "--gpus-each",
        "--no-score",
        "--cpus",
        "--gpus",
        "--agent",
        "--resume",
        "--seeds",
        "--scored",
        "--help",
        "--help-all",
    }
    fields = {flag for flag in leaves(PRESETS["tiny"]) if not re.match(r"rounds\..*\.", flag)}
    known = {"--" + flag for flag in fields} | {f"--rounds.{flag}" for flag in fields}
    short = {"--" + flag.rpartition(".")[2] for flag in known}
    for name, words in COMMANDS:
        for flag in re.findall(r"--[a-z][\w.-]*", words):
            assert flag.rstrip(".") in own | known | short, (name, flag)
        for preset in re.findall(r"^ (?:\w+ )?([a-z]+(?:-[a-z]+)*) --", words):
            assert preset in PRESETS, (name, preset)


@pytest.mark.parametrize(
    "guide", [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "experiments.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(guide: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", guide.read_text()):
        path = guide.parent / target if target else guide
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor[1:] in slugs, (target, anchor)
