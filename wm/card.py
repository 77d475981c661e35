"""The model card of a trained agent: how it was made, and how it scores."""

from typing import Any

import numpy as np

from wm.run import Manifest, Run, must_open
from wm.survey import survey

KEPT = (
    *("frames", "steps", "generation", "best_generation", "env_steps", "best_validation"),
    *("held_out_loss", "held_out_nll", "score", "se", "std", "episodes"),
)
BARS = 24  # characters of the longest bar


def card_of(run: Run) -> dict[str, Any]:
    """What was done for the run's agent, the runs that it builds on included."""
    stages = [station.manifest for station in survey(run) if station.manifest]
    agent = run.config.collect.agent
    return {
        "preset": run.preset,
        "made": [_made(manifest) for manifest in stages if manifest.stage != "score"],
        "env_steps": env_steps(run),
        **({"earlier": card_of(must_open(agent))} if agent else {}),
    }


def env_steps(run: Run) -> int:
    """Steps of the game that all of it took: rollouts and evolution, those of earlier rounds included."""
    own = sum(
        int(manifest.metrics["frames"] if manifest.stage == "collect" else manifest.metrics["env_steps"])
        for manifest in (station.manifest for station in survey(run))
        if manifest and (manifest.stage == "collect" or (manifest.stage == "evolve" and _real(manifest)))
    )
    agent = run.config.collect.agent
    return own + (env_steps(must_open(agent)) if agent else 0)


def _real(manifest: Manifest) -> bool:
    return bool(manifest.config["evolve.where"] == "real")


def _made(manifest: Manifest) -> dict[str, Any]:
    made = manifest.made
    return {
        "stage": manifest.stage,
        "digest": manifest.digest[:12],
        "seconds": made["seconds"],
        "code": made["code"],
        "processor": made["processor"],
        "versions": made["versions"],
        "config": manifest.config,
        "metrics": {name: manifest.metrics[name] for name in KEPT if name in manifest.metrics},
    }


def scored(manifest: Manifest) -> str:
    """The score's section: mean, spread, a histogram, and the worst 1% of the tracks."""
    episodes, metrics = manifest.content["episodes"], manifest.metrics
    scores = np.array([episode["score"] for episode in episodes])
    low, high = np.floor(scores.min() / 50) * 50, np.ceil(scores.max() / 50) * 50
    counts, edges = np.histogram(scores, bins=np.arange(low, high + 1, 50) if high > low else 1)
    bars = [
        f"{edge:6.0f} to {edge + 50:4.0f} {'#' * -(-BARS * count // counts.max())} {count}"
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
            "The worst 1%:",
            "",
            "| seed | score | steps |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def markdown(name: str, card: dict[str, Any]) -> str:
    """How it was made."""
    lines = [f"# {name}", "", f"Environment steps, all rounds and rollouts included: **{card['env_steps']:,}**.", ""]
    part: dict[str, Any] | None = card
    while part is not None:
        lines += [
            f"## Preset {part['preset']}",
            "",
            "| stage | what came of it | wall time | code |",
            "|---|---|---|---|",
        ]
        for made in part["made"]:
            found = ", ".join(f"{key} {value:,.4g}" for key, value in made["metrics"].items())
            lines.append(f"| {made['stage']} | {found} | {made['seconds'] / 60:.1f} min | {made['code']} |")
        lines += ["", f"Processor: {part['made'][0]['processor']}.", ""] if part["made"] else [""]
        part = part.get("earlier")
    return "\n".join(lines)
