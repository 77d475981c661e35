"""Print a script that completes `wm JOB --FLAG` in a shell: `wm completion bash`.

For bash: `wm completion bash > ~/.local/share/bash-completion/completions/wm`. For zsh: `wm completion zsh > _wm` in a
folder of `fpath`. For fish: `wm completion fish > ~/.config/fish/completions/wm.fish`.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import operator
import re
import runpy
import sys
from typing import Annotated, Any

import tyro

from jobs.__main__ import jobs

SHELLS = ("bash", "zsh", "tcsh", "fish")


def flags_of(job: str) -> list[str]:
    """The flags that a job's --help lists, without the dashes."""
    text, before = io.StringIO(), sys.argv
    sys.argv = [f"jobs.{job}", "--help"]
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            runpy.run_module(f"jobs.{job}", run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before
    return list(dict.fromkeys(re.findall(r"^[│ ]*--([a-z][\w.-]*\w)", text.getvalue(), re.MULTILINE)))


def script(shell: str) -> str:
    """The completions of all jobs and their flags, made by the library that parses the command lines."""
    commands = []
    for job, about in jobs().items():
        fields: list[Any] = [
            (f"flag{number}", Annotated[str, tyro.conf.arg(name=name, help="")], "")
            for number, name in enumerate(flags_of(job))
        ]
        command = dataclasses.make_dataclass(job, fields)
        commands.append(Annotated[command, tyro.conf.subcommand(job, description=about)])
    text = io.StringIO()
    union: Any = functools.reduce(operator.or_, commands)
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(union, prog="wm", args=["--tyro-print-completion", shell], config=(tyro.conf.OmitArgPrefixes,))
    return text.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="wm completion", description=__doc__)
    parser.add_argument("shell", choices=SHELLS)
    print(script(parser.parse_args().shell))
