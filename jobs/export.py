"""Write a run's agent as one file: `python -m jobs.export --run URI --to FILE.safetensors [--half]`.

The card beside it says how it was made and, given again with `--scored`, how the file scores.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.runner import guard
from wm.agents.card import card_of, markdown, scored
from wm.agents.trained import export, of_run
from wm.errors import UserError
from wm.runs.run import Manifest, open_existing
from wm.runs.storage import sha256


def job(uri: str, to: str, half: bool, scores: str | None) -> dict[str, Any]:
    path = Path(to)
    if path.suffix != ".safetensors":
        raise UserError(f"--to {to} is no name for an agent: say {path.with_suffix('.safetensors')}")
    run = open_existing(uri)
    card = card_of(run)
    agent, decoder = export(replace(of_run(run), card=card), half)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {path: agent}
    if decoder is None:
        print("V came without its decoder: none is written", file=sys.stderr)
    else:
        files[path.with_name(f"{path.stem}-decoder.safetensors")] = decoder
    for file, data in files.items():
        if file.exists() and file.read_bytes() != data:
            raise UserError(f"{file} is there already and holds something else: remove it, or export --to another name")
    text = markdown(path.stem, card)
    if scores:
        text += f"\n## Score\n\n{scored(_score(scores, agent, path), path.stem)}"
    files[path.with_suffix(".md")] = text.encode()
    for file, data in files.items():
        file.write_bytes(data)
        print(f"{file}: {len(data) / 1e6:.1f} MB", file=sys.stderr)
    print(f"score what you ship: python -m jobs.score --agent {path}", file=sys.stderr)
    return {"job": "export", "run": run.uri, "files": {str(file): len(data) for file, data in files.items()}}


def _score(uri: str, agent: bytes, path: Path) -> Manifest:
    """What `jobs.score --agent` has kept in this run, of this very file."""
    made = open_existing(uri).stage("score", of=sha256(agent)).manifest()
    if made is None:
        raise UserError(
            f"{uri} has no score of {path} as it would be written: run `python -m jobs.score --agent {path}`"
        )
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m jobs.export", description=__doc__)
    parser.add_argument("--run", required=True, help="the run: a folder or s3://bucket/prefix")
    parser.add_argument("--to", required=True, help="the file to write; V's decoder and the card go beside it")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    parser.add_argument("--scored", metavar="URI", help="the run in which jobs.score --agent FILE kept what it played")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments.run, arguments.to, arguments.half, arguments.scored)))
