"""Print the dependencies in pyproject.toml, one per line: `python requirements.py [EXTRA ...]` or `--torch`.

torch is listed separately because the images install different builds of it.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: Path, extras: list[str]) -> list[str]:
    said = tomllib.loads(project.read_text())["project"]
    lines = said["dependencies"] + [
        line for extra in extras for line in said.get("optional-dependencies", {}).get(extra, [])
    ]
    return [line for line in lines if not is_torch(line)]


def torch(project: Path) -> list[str]:
    return [line for line in tomllib.loads(project.read_text())["project"]["dependencies"] if is_torch(line)]


def is_torch(line: str) -> bool:
    return re.split(r"[\[<>=!~ ]", line)[0] == "torch"


if __name__ == "__main__":
    pyproject, words = Path("pyproject.toml"), sys.argv[1:]
    print("\n".join(torch(pyproject) if words == ["--torch"] else requirements(pyproject, words)))
