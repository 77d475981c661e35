"""Lists all jobs: `python -m jobs`. `wm NAME ...` runs a job, like `python -m jobs.NAME ...`."""

import ast
import runpy
import sys
from pathlib import Path

NOT_JOBS = {"__init__", "__main__", "command_line", "display", "parser", "runner", "sudden_end"}
GROUPS = {
    "Train": ("pipeline", "collect", "vision", "latents", "memory", "evolve", "score", "iterate", "tune", "sweep"),
    "Inspect": ("report", "watch", "play", "status", "compare"),
    "Agents": ("export", "unpack"),
    "Machines": ("plan", "bench", "preflight", "submit", "completion"),
}


def jobs() -> dict[str, str]:
    """name -> first line of the docstring, read without importing the job."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in NOT_JOBS:
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
            found[path.stem] = doc.splitlines()[0].partition(": `")[0]
    return found


def listing() -> str:
    """All jobs by group, one line for each."""
    known = jobs()
    lines = ["usage: wm JOB [flags], or python -m jobs.JOB [flags]; --help shows the flags of a job", ""]
    for group, names in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:10} {known[name]}" for name in names), ""]
    return "\n".join(lines)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in jobs():
        sys.argv[:2] = [f"jobs.{name}"]
        runpy.run_module(f"jobs.{name}", run_name="__main__", alter_sys=True)
        return
    if name in ("", "-h", "--help"):
        print(listing())
        return
    print(f"no job {name}; the jobs are {', '.join(jobs())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
