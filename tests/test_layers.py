"""jobs -> cluster -> wm, never back; only cluster and jobs know Ray."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"wm": {"ray", "cluster", "jobs"}, "cluster": {"jobs"}, "jobs": set()}


def violations(layer: str, source: str) -> list[str]:
    """The imports in this source that its layer may not have, wherever in the file they are."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else ["." * node.level]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names = [str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        found += [name for name in names if name.split(".")[0] in FORBIDDEN[layer] or name.startswith(".")]
    return found


FILES = [path.relative_to(ROOT) for layer in FORBIDDEN for path in sorted((ROOT / layer).rglob("*.py"))]


def test_there_are_files() -> None:
    assert {path.parts[0] for path in FILES} == set(FORBIDDEN)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_from_its_layer_and_below(path: Path) -> None:
    assert violations(path.parts[0], (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("wm", "import ray"),
        ("wm", "import numpy, ray.data as data"),
        ("wm", "from cluster.pool import RayPool"),
        ("wm", "def later():\n    from jobs import manners"),
        ("wm", "if x:\n    importlib.import_module('ray.data')"),
        ("wm", "from ..cluster import pool"),
        ("cluster", "from jobs.runner import guard"),
    ],
)
def test_the_rule_fails_on_a_violation(layer: str, source: str) -> None:
    assert len(violations(layer, source)) == 1


@pytest.mark.parametrize(
    ("layer", "source"),
    [("wm", "import rays\nfrom wm.run import Run"), ("cluster", "import ray"), ("jobs", "from cluster import pool")],
)
def test_the_rule_allows_what_it_should(layer: str, source: str) -> None:
    assert violations(layer, source) == []
