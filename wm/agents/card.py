"""The model card of a trained agent: how it was made, and how it scores."""

from typing import Any

import numpy as np

from wm.agents.unpack import carried_card
from wm.config.fields import of_kind
from wm.config.schema import Config
from wm.formatting import format_number
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing
from wm.runs.status import stage_statuses

KEPT = (
    *("frames", "steps", "generation", "best_generation", "env_steps", "best_validation"),
    *("best_validation_se", "sigma", "held_out_loss", "held_out_nll", "score", "se", "std", "episodes"),
)
ORIGINS = ("collect.agent", "vision.init", "memory.init", "evolve.init")  # other runs
BARS = 24  # characters of the longest bar


def card_of(run: Run) -> dict[str, Any]:
    """How the run's agent was made, in this run and those it builds on; each stage once."""
    runs = [part for card in _carried(run) for part in card["runs"]]
    for one, new in _stages(run):
        made = [_made(manifest) for manifest in new if manifest.stage != "score" and carried_card(manifest) is None]
        if made or not new:
            runs.append({"name": _name(one.uri), "preset": one.preset, "made": made})
    return {"env_steps": env_steps(run), "runs": runs}


def all_made(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Every stage of every run in the card, in order."""
    return [made for part in card["runs"] for made in part["made"]]


def env_steps(run: Run) -> int:
    """Steps of the game for rollouts and evolution, including the runs it builds on."""
    made = [manifest for _, new in _stages(run) for manifest in new if carried_card(manifest) is None]
    frames = sum(int(manifest.metrics["frames"]) for manifest in made if manifest.stage == "collect")
    evolution = sum(
        int(manifest.metrics["env_steps"]) for manifest in made if manifest.stage == "evolve" and _real(manifest)
    )
    return frames + evolution + sum(int(card["env_steps"]) for card in _carried(run))


def _carried(run: Run) -> list[dict[str, Any]]:
    """The cards of agent files that stages were unpacked from, each once."""
    found = {
        manifest.inputs["agent"]: card
        for _, new in _stages(run)
        for manifest in new
        if (card := carried_card(manifest)) is not None
    }
    return list(found.values())


def _stages(run: Run) -> list[tuple[Run, list[Manifest]]]:
    """The stages that each run of the lineage added, without the C of runs that only lent V or M."""
    found, seen = [], set[str]()
    for one, lent in lineage(run):
        made = [status.manifest for name, status in stage_statuses(one).items() if not (lent and name == "evolve")]
        new = [manifest for manifest in made if manifest and manifest.digest not in seen]
        seen |= {manifest.digest for manifest in new}
        found.append((one, new))
    return found


def lineage(run: Run) -> list[tuple[Run, bool]]:
    """The runs that this one builds on through its rollouts, C, V and M, oldest first, then the run itself.

    The flag of each is True if it only lent initial weights of V or M, so that its own C has no part in this run.
    """
    found: dict[str, tuple[Run, bool]] = {}

    def visit(one: Run, lent: bool, on_the_way: frozenset[str]) -> None:
        config = one.config
        origins = {config.vision.init: True, config.memory.init: True, config.collect.agent: False}
        if not lent:
            origins[config.evolve.init] = False
        for uri, lends in origins.items():
            known = uri in found and found[uri][1] <= lends
            if uri and not known and uri not in on_the_way:
                visit(open_existing(uri), lends, on_the_way | {uri})
        found[one.uri] = one, lent

    visit(run, False, frozenset({run.uri}))
    return list(found.values())


def _real(manifest: Manifest) -> bool:
    return bool(manifest.config["evolve.where"] == "real")


def _made(manifest: Manifest) -> dict[str, Any]:
    made = manifest.made
    return {
        "stage": manifest.stage,
        "digest": manifest.digest[:12],
        "seconds": made["seconds"],
        "cpus": made.get("cpus", 0),
        "code": made["code"],
        "processor": made["processor"],
        "versions": made["versions"],
        "config": manifest.config | {path: _name(uri) for path, uri in manifest.config.items() if path in ORIGINS},
        "metrics": {name: manifest.metrics[name] for name in KEPT if name in manifest.metrics},
    }


def _name(uri: str) -> str:
    """The last part of the URI, without the path, which is private."""
    return uri.rstrip("/").rpartition("/")[2]


def scored(manifest: Manifest, agent: str) -> str:
    """The section with the score: mean, spread, histogram, the worst 1% of the tracks, and the command."""
    episodes, metrics = manifest.content["episodes"], manifest.metrics
    scores = np.array([episode["score"] for episode in episodes])
    low, high = np.floor(scores.min() / 50) * 50, np.ceil(scores.max() / 50) * 50
    width = 50 * max(1, round((high - low) / 1_000))  # about twenty bars
    counts, edges = np.histogram(scores, bins=np.arange(low, high + width, width) if high > low else 1)
    bars = [
        f"{edge:6.0f} to {edge + width:4.0f} {'#' * -(-BARS * count // counts.max())} {count}"
        for edge, count in zip(edges, counts, strict=False)
    ]
    worst = sorted(episodes, key=lambda episode: episode["score"])[: max(1, len(episodes) // 100)]
    rows = [f"| {episode['seed']} | {episode['score']:.0f} | {episode['steps']} |" for episode in worst]
    return "\n".join(
        [
            f"**{metrics['score']:.1f} ± {metrics['se']:.1f}** (mean and standard error of {metrics['episodes']} whole"
            f" episodes of the unmodified game; standard deviation {metrics['std']:.1f}, median {np.median(scores):.1f}"
            f", best {scores.max():.1f}, worst {scores.min():.1f})",
            "",
            "```text",
            *bars,
            "```",
            "",
            "The worst 1% of the episodes:",
            "",
            "| seed | score | steps |",
            "|---|---|---|",
            *rows,
            "",
            f"Command: `python -m jobs.score --agent {agent} --episodes {metrics['episodes']}`.",
            "",
        ]
    )


def markdown(name: str, card: dict[str, Any]) -> str:
    """How the agent was made: the total cost, then each run that took part, oldest first."""
    steps, hours = card["env_steps"], sum(made["seconds"] for made in all_made(card)) / 3600
    core_hours = sum(made["seconds"] * made.get("cpus", 0) for made in all_made(card)) / 3600
    took = f"Wall time **{hours:.1f} hours**"
    if all(made.get("cpus") for made in all_made(card)):
        took += f", **{core_hours:.1f} core-hours** (wall time times all cores of the machine)"
    lines = [f"# {name}", "", f"Environment steps, including all rounds and rollouts: **{steps:,}**.", f"{took}.", ""]
    for number, part in enumerate(card["runs"], 1):
        lines += [
            f"## {number}. {part.get('name', 'a run')} (preset {part['preset']})",
            "",
            "| stage | settings other than the default | result | wall time | code |",
            "|---|---|---|---|---|",
        ]
        for made in part["made"]:
            found = ", ".join(f"{key} {format_number(value)}" for key, value in made["metrics"].items())
            minutes = f"{made['seconds'] / 60:.1f} min"
            lines.append(f"| {made['stage']} | {_recipe(made)} | {found} | {minutes} | {made['code']} |")
        lines += ["", _circumstances(part["made"]), ""] if part["made"] else [""]
    return "\n".join(lines)


def _recipe(made: dict[str, Any]) -> str:
    """The stage's fields that differ from their defaults."""
    usual, own = of_kind(Config(), "bits"), (made["stage"], "controller")
    return ", ".join(
        f"{path.partition('.')[2]} {format_number(value) if isinstance(value, float) else value}"
        for path, value in made["config"].items()
        if path.partition(".")[0] in own and value != usual.get(path)
    )


def _circumstances(stages: list[dict[str, Any]]) -> str:
    """Seed, versions and machine of a run's stages; of the last one, if they differ."""
    last = stages[-1]
    versions = ", ".join(f"{package} {version}" for package, version in last["versions"].items())
    return f"Seed {last['config']['seed']}; {versions}; processor {last['processor']}."
