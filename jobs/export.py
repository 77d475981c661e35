"""Write a run's agent to a file: `python -m jobs.export --run URI --to FILE.safetensors [--half]`.

A card next to it describes how the agent was made and, with `--scored`, how it scores.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.parser import Parser, filled
from jobs.runner import check_writable, guard
from wm.agents.card import card_of, markdown, scored
from wm.agents.files import export_agent
from wm.agents.trained import of_run
from wm.errors import UserError
from wm.runs.manifest import Manifest
from wm.runs.run import open_existing
from wm.runs.storage import open_storage, sha256


def job(uri: str, to: str, half: bool, scores: str | None) -> dict[str, Any]:
    path = Path(to).expanduser()
    if path.suffix != ".safetensors":
        raise UserError(f"--to must end in .safetensors, got {to}")
    run = open_existing(uri)
    check_writable(path)
    card = card_of(run)
    agent, decoder = export_agent(replace(of_run(run), card=card), half)
    files = {path: agent}
    if decoder is None:
        print("V has no decoder, so no decoder file is written", file=sys.stderr)
    else:
        files[path.with_name(f"{path.stem}-decoder.safetensors")] = decoder
    for file, data in files.items():
        if file.exists() and file.read_bytes() != data:
            raise UserError(f"{file} already exists with other content: delete it, or use another name for --to")
    text = markdown(path.stem, card)
    if scores:
        text += f"\n## Score\n\n{scored(_score(scores, agent, path), path.stem)}"
    files[path.with_suffix(".md")] = text.encode()
    storage = open_storage(str(path.parent))
    for file, data in files.items():
        storage.put(file.name, data)
        print(f"{file}: {len(data) / 1e6:.1f} MB", file=sys.stderr)
    print(f"score this file: python -m jobs.score --agent {path}", file=sys.stderr)
    return {"job": "export", "run": run.uri, "files": {str(file): len(data) for file, data in files.items()}}


def _score(uri: str, agent: bytes, path: Path) -> Manifest:
    """The score of this file, which `jobs.score --agent` wrote into the run at `uri`."""
    manifest = open_existing(uri).stage("score", of=sha256(agent)).manifest()
    if manifest is None:
        raise UserError(f"{uri} has no score of this version of {path}: run `python -m jobs.score --agent {path}`")
    return manifest


if __name__ == "__main__":
    parser = Parser(prog="python -m jobs.export", description=__doc__)
    parser.add_argument("--run", required=True, type=filled, help="the run: a folder or s3://bucket/prefix")
    parser.add_argument(
        "--to", required=True, help="the file to write; V's decoder and the card are written next to it"
    )
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    parser.add_argument("--scored", metavar="URI", help="the run that jobs.score --agent FILE wrote its score into")
    arguments = parser.parse_args()
    sys.exit(guard(lambda: job(arguments.run, arguments.to, arguments.half, arguments.scored)))
