"""Every damaged file of a run is refused with a cure in one line, and following that line restores the run."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing.trials import run_job

from wm.runs.reader import SEAL, sealed
from wm.runs.run import Run, open_existing
from wm.runs.status import stage_statuses


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def one(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def follow(message: str, folder: Path) -> None:
    """Do what the message says: delete what it names, then run its command."""
    file = Path(message.partition(" is ")[0])
    if found := re.search(r"delete it and the manifests in ([^ ,]+),", message):
        file.unlink()
        for manifest in (folder / found[1]).glob("manifest-*"):
            manifest.unlink()
    elif found := re.search(r"delete the folder ([^ ]+) ", message):
        shutil.rmtree(folder / found[1])
    elif re.search(r"delete (it|this file)", message):
        file.unlink()
    command = re.search(r"`python -m jobs\.(\w+) ([^`]+)`", message)
    name, words = (command[1], command[2]) if command else ("pipeline", f"--run {folder}")
    again = run_job(name, *words.replace("PRESET", "tiny").split(), "--local")
    assert again.code == 0, again.stderr + again.trace


def digests(run: Run) -> dict[str, str]:
    return {name: status.manifest.digest for name, status in stage_statuses(run).items() if status.manifest}


@pytest.mark.parametrize(
    "pattern",
    [
        "config.json",
        "*/manifest-*.json",
        "vision/manifest-*.json",
        "evolve/*/manifest-*.json",
        "latents/*/manifest-*.json",
        "score/*/manifest-*.json",
        "collect/shards/000001.parquet",
        "latents/*/shards/000000.parquet",
        "latents/*/starts-*.safetensors",
        "memory/*/weights-*.safetensors",
        "evolve/*/controller-*.safetensors",
        "evolve/*/means/000002.safetensors",
        "evolve/*/metrics.jsonl",
        "memory/*/metrics.jsonl",
        "memory/*/checkpoints/step-*.safetensors",
    ],
)
def test_the_cure_of_a_damaged_file_restores_the_run(pattern: str, copy: Callable[..., Path]) -> None:
    folder = copy()
    for name in ("stdout", "stderr"):
        (folder / name).unlink()
    before = digests(open_existing(str(folder)))
    flip(one(folder, pattern))
    found = run_job("status", "--run", folder, "--check")
    assert (found.code, found.broken_rule(lines=3)) == (2, ""), found.stderr + found.trace
    follow(found.message[0], folder)
    assert run_job("pipeline", "--run", folder, "--local").code == 0
    checked = run_job("status", "--run", folder, "--check")
    assert checked.code == 0, checked.stderr
    assert digests(open_existing(str(folder))) == before


@pytest.mark.parametrize("pattern", ["collect/000000.json", "latents/*/000001.json", "score/*/0000000.json"])
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_record_is_no_part_of_a_result(
    pattern: str, damage: Callable[[Path], None], copy: Callable[..., Path]
) -> None:
    """The job was killed before its manifest."""
    folder = copy()
    before = digests(open_existing(str(folder)))
    path = one(folder, pattern)
    damage(path)
    for manifest in path.parent.glob("manifest-*"):
        manifest.unlink()
    stage = path.relative_to(folder).parts[0]
    refused = run_job(stage, "--run", folder, "--local")
    assert (refused.code, refused.broken_rule()) == (2, ""), refused.stderr + refused.trace
    assert refused.message[-1].startswith(f"{path} is damaged (")
    follow(refused.message[-1], folder)
    assert digests(open_existing(str(folder))) == before


@pytest.mark.parametrize("pattern", ["collect/seconds.json", "lease/0001.json"])
def test_other_files_can_be_deleted(pattern: str, copy: Callable[..., Path]) -> None:
    folder = copy()
    path = folder / pattern
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    for manifest in (folder / "collect").glob("manifest-*"):
        manifest.unlink()
    refused = run_job("collect", "--run", folder, "--local")
    assert (refused.code, refused.broken_rule()) == (2, ""), refused.stderr + refused.trace
    follow(refused.message[-1], folder)


def test_a_forged_score_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    path = one(folder, "score/*/0000000.json")
    path.write_text(re.sub('"score": [-0-9.]*', '"score": 900.0', path.read_text()))
    refused = run_job("score", "--run", folder, "--local", "--episodes", 3)
    assert refused.code == 2
    assert "its content does not match its seal" in refused.message[-1]


def test_metrics_are_sealed(copy: Callable[..., Path]) -> None:
    folder = copy()
    path = one(folder, "score/*/manifest-*.json")
    values = json.loads(path.read_text())
    values["metrics"]["score"] += 100
    path.write_text(json.dumps(values))
    for job in (("status",), ("score", "--local")):
        assert run_job(job[0], "--run", folder, *job[1:]).code == 2


def test_a_record_of_another_agent_is_refused(copy: Callable[..., Path]) -> None:
    """It has a good seal: it was copied from elsewhere."""
    folder = copy()
    path = one(folder, "score/*/0000000.json")
    values = json.loads(path.read_text())
    del values[SEAL]
    path.write_bytes(sealed(values | {"agent": "a" * 64}, path.relative_to(folder).as_posix()))
    one(folder, "score/*/manifest-*.json").unlink()
    refused = run_job("score", "--run", folder, "--local")
    assert refused.code == 2
    assert "it is of another agent or seed" in refused.message[-1]


def test_a_manifest_of_another_config_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    path = one(folder, "collect/manifest-*.json")
    values = json.loads(path.read_text())
    del values[SEAL]
    values["config"]["collect.steps"] = 41
    path.write_bytes(sealed(values, path.relative_to(folder).as_posix()))
    refused = run_job("pipeline", "--run", folder, "--local")
    assert refused.code == 2
    assert "was made with --collect.steps 41, but the config of this run has 40: restore" in refused.message[-1]
