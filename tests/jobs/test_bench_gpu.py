"""`jobs.bench gpu` on a machine that has only torch and numpy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from jobs.benchmarks.bare import PACKAGES
from wm.models.device import problem

ROOT = Path(__file__).resolve().parents[2]
# torch, numpy and what torch imports.
KEPT = ("torch", "torchgen", "functorch", "numpy", "numpy.libs", "typing_extensions.py", "sympy", "mpmath", "networkx")
KEPT = (*KEPT, "jinja2", "markupsafe", "filelock", "fsspec", "triton", "nvidia")


def bare(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Without the packages of this environment (-S) except for links to those that are kept."""
    packages = Path(torch.__file__).parents[1]
    for name in KEPT:
        if (packages / name).exists():
            (folder / name).symlink_to(packages / name)
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONNOUSERSITE": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-m", "jobs.bench", "gpu", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )


def test_it_runs_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    made = bare(tmp_path, "--device", "cpu", "--seconds", "0.01")
    assert made.returncode == 0, made.stderr
    rows = {row["what"]: row for row in json.loads(made.stdout.splitlines()[-1])["figures"]}
    assert not [row for row in rows.values() if row["result"] == "FAILED"], made.stderr
    for what in (
        "V, batch 8, float32, frames on the GPU",
        "M of car-racing-small, float32",
        "dreams, 64 at a time, tf32",
    ):
        assert rows[what]["figure"] > 0
    assert rows["readers"]["result"] == "skipped"
    assert {"ray", "gymnasium", "cma"} <= set(PACKAGES)
    assert all(name in rows["readers"]["unit"] for name in PACKAGES)


def test_without_cuda_it_says_so(tmp_path: Path) -> None:
    if not problem():
        return
    made = bare(tmp_path)
    assert made.returncode == 2
    assert made.stderr.startswith("can't use cuda: torch ")
    assert len(made.stderr.splitlines()) == 1
