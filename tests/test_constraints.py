"""constraints.txt pins every package that an installation brings, in versions that pyproject.toml allows."""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def direct() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["test"])]


def test_direct_requirements_allow_the_pinned_versions() -> None:
    versions = pinned()
    for requirement in direct():
        if requirement.name != "torch":
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert "torch" not in versions
    assert [str(one.specifier) for one in direct() if one.name == "torch"] == ["==2.13.0"]


def test_indirect_requirements_are_pinned_as_well() -> None:
    """Those of torch are left out: which ones there are depends on its build."""
    versions, seen = pinned(), set[tuple[str, str]]()
    left = [(one.name, extra) for one in direct() for extra in ("", *one.extras)]
    while left:
        name, extra = left.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen or name in ("torch", "setuptools"):  # setuptools is part of an environment
            continue
        seen.add((name, extra))
        assert name in versions, name
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                left += [(needed.name, further) for further in ("", *needed.extras)]
    assert len(seen) > 80
