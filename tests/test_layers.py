"""Imports go one way: jobs -> cluster -> wm, and within wm from each package only to those before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"wm": {"ray", "cluster", "jobs"}, "cluster": {"jobs"}, "jobs": set()}
# The order of wm: packages and the modules beside them, lowest first.
ORDER = (
    *(
        "errors",
        "schemas",
        "formatting",
        "statistics",
        "seeds",
        "pool",
        "envs",
        "config",
        "models",
        "runs",
        "dream",
        "evolution",
    ),
    *("training", "agents", "visuals", "stages", "pipeline", "experiments", "play", "report"),
)


def imports(source: str) -> Iterator[str]:
    """All modules that this source imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = node.module or "" if not node.level else "." * node.level
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def violations(path: str, source: str) -> list[str]:
    """The imports that the file at this path may not have."""
    layer, *inner = Path(path).with_suffix("").parts
    found = [name for name in imports(source) if name.split(".")[0] in FORBIDDEN[layer] or name.startswith(".")]
    if layer == "wm" and inner[0] != "__init__":
        own = ORDER.index(inner[0])
        parts = [name.split(".") for name in imports(source) if name.startswith("wm.")]
        found += [".".join(part) for part in parts if part[1] in ORDER and ORDER.index(part[1]) > own]
    return found


FILES = [path.relative_to(ROOT) for layer in FORBIDDEN for path in sorted((ROOT / layer).rglob("*.py"))]


def test_every_part_of_wm_has_a_place_in_the_order() -> None:
    there = {path.parts[1].removesuffix(".py") for path in FILES if path.parts[0] == "wm"} - {"__init__"}
    assert there == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_comes_before_it(path: Path) -> None:
    assert violations(str(path), (ROOT / path).read_text()) == []


def test_no_two_files_import_each_other() -> None:
    """Also not through others: each file can be put after all that it imports."""
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    needs: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = set()
        for imported in imports((ROOT / path).read_text()):
            target = imported if imported in modules else imported.rpartition(".")[0]
            found |= {target} & modules.keys() - {name}
        needs[name] = found
    while ready := {name for name, found in needs.items() if not found & needs.keys()}:
        needs = {name: found for name, found in needs.items() if name not in ready}
    assert needs == {}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("wm/seeds.py", "import ray"),
        ("wm/seeds.py", "import numpy, ray.data as data"),
        ("wm/pipeline.py", "from cluster.pool import RayPool"),
        ("wm/runs/run.py", "def later():\n    from jobs import runner"),
        ("wm/runs/run.py", "if x:\n    importlib.import_module('ray.data')"),
        ("wm/runs/run.py", "from ..cluster import pool"),
        ("cluster/pool.py", "from jobs.runner import guard"),
        ("wm/models/vision.py", "from wm.runs.run import Run"),
        ("wm/models/vision.py", "from wm import runs"),
        ("wm/envs/doom.py", "def later():\n    import wm.config.schema"),
        ("wm/stages/score.py", "from wm.pipeline import pipeline"),
    ],
)
def test_the_rule_fails_on_a_violation(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("wm/stages/score.py", "import rays\nfrom wm.runs.run import Run"),
        ("wm/models/agent.py", "from wm.models.vision import VAE"),
        ("cluster/pool.py", "import ray"),
        ("jobs/score.py", "from cluster import pool"),
    ],
)
def test_the_rule_allows_what_it_should(path: str, source: str) -> None:
    assert violations(path, source) == []
