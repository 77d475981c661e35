"""Versions and processor, which may change the bits of a result although the config is the same."""

import logging
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@cache
def warn_of_differences(code: str, processor: str) -> None:
    """Warn (once for each pair) if an input was made by another version or on another processor."""
    here = circumstances()
    if code != here["code"]:
        log.warning("part of this run was made by code version %s, this is version %s", code, here["code"])
    if processor != here["processor"]:
        log.warning(
            "part of this run was made on processor %s, this is %s: results are not bit-identical",
            processor,
            here["processor"],
        )


@cache
def circumstances() -> dict[str, Any]:
    """Versions of code, Python and packages, and the processor, of this process."""
    packages = ("torch", "numpy", "gymnasium", "box2d", "vizdoom", "cma", "pyarrow", "opencv-python-headless")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "code": _code_version(),
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
    }


def _code_version() -> str:
    try:
        version = metadata.version("world-models-ray")
    except metadata.PackageNotFoundError:
        version = "unknown"
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return version
    git = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{version}+{git.stdout.strip()}" if git.returncode == 0 else version


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
