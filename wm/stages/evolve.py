"""Evolve C: each generation the same fresh tracks for all candidates; the distribution's mean is the answer."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_theta, parts
from wm.config.schema import Config
from wm.dream.starts import sizes_of, starts_of
from wm.envs import load
from wm.errors import UserError
from wm.evolution.cma_es import Evolution
from wm.evolution.components import components_of, seen_by
from wm.evolution.evaluation import DreamUnit, EvaluateWork, GameUnit
from wm.evolution.refit import Seeing, refitted
from wm.models.build import controller_of
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.pool import Crew, Pool, Progress
from wm.runs.checkpoints import Checkpoints, pack, unpack
from wm.runs.datasets import rollouts
from wm.runs.run import Manifest, Run, Stage, open_existing
from wm.runs.storage import sha256
from wm.seeds import derive, training_episode, validation_episode
from wm.training.tensorboard import event_file

log = logging.getLogger(__name__)

DRAWS = 50  # tries for an episode that is as hard as asked for
NO_CURVE = ("theta_sha256", "tracks", "told")  # of what is kept of a generation
DECLINE = 3.0  # standard errors below the best validation that are reported as a decline


def evolve(config: Config, run: Run, pool: Pool) -> Manifest:
    """C's best-validated mean after so many generations."""
    stage, inputs, vision, memory = parts(config, run)
    done = stage.complete(config.evolve.generations)
    if done is not None:
        return done
    stage.begin()
    if config.evolve.where == "dream" and config.controller.latent == "mu":
        log.warning("in the dream C sees z with V's doubt, in the game without: say --controller.latent z")
    starts = starts_of(config, run, memory) if memory and config.evolve.where == "dream" else None
    vision = vision.encoder_only()
    dreaming = EvaluateWork(config, vision, memory, starts, device=config.evolve.device)
    with ExitStack() as crews:
        if starts and pool.device(config.evolve.device) == "cuda":
            dreams = crews.enter_context(pool.crew(dreaming, gpu=True))
            games = crews.enter_context(pool.crew(EvaluateWork(config, vision, memory)))
        else:
            dreams = games = crews.enter_context(pool.crew(dreaming))
        begin = partial(_begin, config, run, vision, memory)
        history = _generations(config, run, stage, begin, dreams, games)
    best = max((row for row in history if "validation" in row), key=lambda row: row["validation"])
    theta = unpack(run.storage.get(_mean_key(stage, int(best["generation"]))) or b"")[0]["theta"]
    data = pack({"theta": theta}, {})
    key = stage.key(f"controller-{sha256(data)[:12]}.safetensors")
    run.storage.commit(key, data)
    last = history[-1]
    return stage.commit(
        config.evolve.generations,
        inputs=inputs,
        content={"theta": key, "files": {key: sha256(data)}},
        metrics={
            "generation": int(last["generation"]),
            "env_steps": int(last["env_steps"]),
            "sigma": last["sigma"],
            "theta_sha256": last["theta_sha256"],
            "score_of_mean": last["validation"],
            "best_generation": int(best["generation"]),
            "best_validation": best["validation"],
            "best_validation_se": best["validation_se"],
        },
    )


def _generations(
    config: Config,
    run: Run,
    stage: Stage,
    begin: Callable[[], tuple[Evolution, int]],
    players: Crew,
    validators: Crew,
) -> list[dict[str, Any]]:
    """From the last complete generation, or the beginning, to the last one; each ends with a checkpoint."""
    section, seed = config.evolve, _seed(config)
    checkpoints = Checkpoints(run.storage, stage.key("checkpoints"))
    found = checkpoints.newest()
    history: list[dict[str, Any]] = found[1]["history"] if found else []
    evolution, cost_of = (_resumed(config, *found), 0) if found else begin()
    stage.tell(_progress(evolution, section.generations, history))
    while evolution.generation < section.generations:
        began = time.monotonic()
        thetas = evolution.ask()
        again = most_telling(history)[: round(section.again * section.episodes)]
        tracks = _tracks(config, seed, evolution.generation, again) if section.where == "real" else []
        scores, steps = _scores(config, seed, evolution.generation, thetas, tracks, players)
        counted = counting(scores, section.cut)
        evolution.tell(counted.mean(axis=1))
        evolution.shrink(section.sigma_decay)
        finite = (means := scores.mean(axis=1))[np.isfinite(means)]
        row: dict[str, Any] = {
            "generation": evolution.generation,
            "env_steps": (history[-1]["env_steps"] if history else cost_of) + steps,
            "best": float(finite.max()),
            "mean": float(finite.mean()),
            "worst": float(finite.min()),
            "sigma": evolution.sigma,
            "theta_sha256": sha256(evolution.mean.tobytes()),
            "time": round(time.time(), 3),
        }
        if section.again:
            row |= {"tracks": tracks, "told": np.nanstd(counted, axis=0).tolist()}
        if evolution.generation % section.validate_every == 0 or evolution.generation == section.generations:
            row |= _validate(config, evolution, validators)
            mean = pack({"theta": torch.from_numpy(evolution.mean)}, {})
            run.storage.put(_mean_key(stage, evolution.generation), mean)
            _report_decline(history, row)
        row["seconds"] = round(time.monotonic() - began, 3)
        history.append(row)
        numbers = [{key: value for key, value in row.items() if key not in NO_CURVE} for row in history]
        events = event_file("evolve", [row | {"step": row.pop("generation")} for row in numbers])
        run.storage.put(stage.key("metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in history).encode())
        run.storage.put(stage.key("events.out.tfevents.0.evolve"), events)
        arrays, plain = evolution.state()
        checkpoints.save(
            evolution.generation,
            {name: torch.from_numpy(array) for name, array in arrays.items()},
            plain | {"history": history},
            keep="",
        )
        stage.tell(_progress(evolution, section.generations, history))
    return history


def _seed(config: Config) -> int:
    return config.seed + config.evolve.seed


def _resumed(config: Config, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> Evolution:
    """As it was after the last complete generation."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    evolution = _evolution(config, config.evolve.sigma0, axes=arrays.get("axes"))
    evolution.load_state(arrays, info)
    log.info("evolve goes on from generation %d", evolution.generation)
    return evolution


def _begin(config: Config, run: Run, vision: Vision, memory: MDNRNN | None) -> tuple[Evolution, int]:
    """The first generation's distribution, and the steps of the game that it took to know it."""
    section = config.evolve
    mean, sigma, axes, cost_of = None, section.sigma0, None, 0
    if section.init:
        mean, sigma = _other(config, run, vision, memory)
    if section.scaled:
        assert memory is not None, "checked with the config"
        shape = controller_of(config)
        axes = shape.scale(sizes_of(config, run, memory)[: shape.features_size])
    elif section.components:
        assert mean is not None, "checked with the config"
        seen, cost_of = seen_by(config, vision, memory, mean)
        axes = controller_of(config).directions(*components_of(seen, section.components))
    return _evolution(config, sigma, mean, axes), cost_of


def _evolution(
    config: Config, sigma: float, mean: np.ndarray | None = None, axes: np.ndarray | None = None
) -> Evolution:
    section, size = config.evolve, controller_of(config).size
    seed = derive(_seed(config), "evolve")
    return Evolution(size, section.population, sigma, section.covariance, seed, mean, axes, mean_rate=section.mean_rate)


def _other(config: Config, run: Run, vision: Vision, memory: MDNRNN | None) -> tuple[np.ndarray, float]:
    """The mean and sigma that this evolution starts from: another run's."""
    section, other = config.evolve, open_existing(config.evolve.init)
    stage, inputs, its_vision, its_memory = parts(other.config, other)
    manifest = stage.manifest()
    if manifest is None:
        raise UserError(f"no complete evolve in {section.init} to start from: complete it, or leave --evolve.init out")
    mean, sigma = load_theta(manifest), section.init_sigma or manifest.metrics.get("sigma", 0.0)
    if not sigma:
        raise UserError(f"{section.init} does not say its sigma: say --evolve.init-sigma, 0.02 for instance")
    units = section.scaled, section.components > 0
    if (other.config.evolve.scaled, other.config.evolve.components > 0) != units and not section.init_sigma:
        raise UserError(f"the sigma of {section.init} is of another scale: say --evolve.init-sigma, 0.02 for instance")
    if section.refit and inputs != parts(config, run)[1]:
        data = rollouts(run.need("collect", config.collect.episodes, "collect"))
        before = Seeing(controller_of(other.config), its_vision, its_memory)
        log.info("the C in %s is fitted to V and M as they are now", section.init)
        return refitted(mean, before, Seeing(controller_of(config), vision, memory), data), sigma
    if mean.size != (size := controller_of(config).size):
        raise UserError(
            f"the C in {section.init} has {mean.size} numbers, this one {size}: start from a run of the same sizes"
        )
    return mean, sigma


def _scores(
    config: Config, seed: int, generation: int, thetas: np.ndarray, tracks: list[int], crew: Crew
) -> tuple[np.ndarray, int]:
    """Each candidate's scores in this generation's episodes (P, E), and the steps that took."""
    section = config.evolve
    scores, steps = np.zeros((len(thetas), section.episodes)), 0
    if section.where == "dream":
        for unit, (returns, lengths) in crew.map(_dreams(config, seed, generation, thetas)):
            first = unit.first
            scores[first : first + len(returns)] = returns
            steps += int(lengths.sum())
        return scores, steps
    for unit, played in crew.map(_games(config, seed, generation, thetas, tracks)):
        first = unit.first
        scores.flat[first : first + len(played)] = [episode.score for episode in played]
        steps += sum(episode.steps for episode in played)
    return scores, steps


def counting(scores: np.ndarray, cut: float) -> np.ndarray:
    """What counts of these scores (P, E): with `cut` how far they lie above or below the episode's median, and no
    episode more than that. A crash is luck above all. (P, E)
    """
    if not cut:
        return scores
    known = np.where(np.isfinite(scores), scores, np.nan)
    return np.clip(known - np.nanmedian(known, axis=0), -cut, cut)


def most_telling(history: Sequence[dict[str, Any]]) -> list[int]:
    """Tracks met so far, those first in which candidates differed most when they met them last."""
    told: dict[int, float] = {}
    for row in history:
        told |= zip(row.get("tracks", ()), row.get("told", ()), strict=True)
    return sorted(told, key=lambda track: (-told[track], track))


def _games(config: Config, seed: int, generation: int, thetas: np.ndarray, tracks: Sequence[int]) -> Iterator[GameUnit]:
    """All (candidate, track) pairs in a row, cut into units."""
    section, limit = config.evolve, config.evolve.steps or load(config.game).max_steps
    for first in range(0, len(thetas) * section.episodes, section.unit_episodes):
        pairs = range(first, min(first + section.unit_episodes, len(thetas) * section.episodes))
        candidates = [pair // section.episodes for pair in pairs]
        yield GameUnit(
            name=f"generation {generation}, games from {first}",
            thetas=thetas[candidates[0] : candidates[-1] + 1],
            owner=tuple(candidate - candidates[0] for candidate in candidates),
            seeds=tuple(tracks[pair % section.episodes] for pair in pairs),
            steps=limit,
            patience=section.patience,
            noise=derive(seed, "evolve", "noise", generation, first),
            first=first,
        )


def _tracks(config: Config, seed: int, generation: int, again: Sequence[int] = ()) -> list[int]:
    """This generation's episodes: those met again, then fresh ones as hard as they are asked for."""
    section, game, found = config.evolve, load(config.game), list(again)
    for number in range(DRAWS * section.episodes):
        track = training_episode(seed, "evolve", generation, number)
        if not section.hardness or game.hardness(track) >= section.hardness:
            found.append(track)
        if len(found) == section.episodes:
            return found
    raise UserError(f"hardly an episode of {game.name} is so hard: say less than --evolve.hardness {section.hardness}")


def _dreams(config: Config, seed: int, generation: int, thetas: np.ndarray) -> Iterator[DreamUnit]:
    """Some candidates with all of a generation's dreams, about `unit_episodes` together."""
    section = config.evolve
    each = max(1, section.unit_episodes // section.episodes)
    for first in range(0, len(thetas), each):
        name = f"generation {generation}, dreams of candidates from {first}"
        yield DreamUnit(name, thetas[first : first + each], derive(seed, "dream", generation), section.episodes, first)


def validation_games(config: Config, theta: np.ndarray, name: str) -> Iterator[GameUnit]:
    """The mean on validation tracks, whole episodes."""
    section, limit = config.evolve, load(config.game).max_steps
    # A unit of dreams holds far more than one process should play of the real game.
    each = section.unit_episodes if section.where == "real" else config.score.unit_episodes
    for first in range(0, section.validation_episodes, each):
        episodes = range(first, min(first + each, section.validation_episodes))
        yield GameUnit(
            name=f"{name}, games from {first}",
            thetas=theta[None],
            owner=(0,) * len(episodes),
            seeds=tuple(validation_episode(episode) for episode in episodes),
            steps=limit,
            patience=0,
            noise=derive("validation", first),
            first=first,
        )


def _validate(config: Config, evolution: Evolution, crew: Crew) -> dict[str, float]:
    units = validation_games(config, evolution.mean, f"validation of generation {evolution.generation}")
    scores = np.array([episode.score for _, played in sorted(crew.map(units), key=_first) for episode in played])
    error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0
    return {"validation": float(scores.mean()), "validation_se": error, "validation_std": float(scores.std())}


def _first(answer: tuple[GameUnit, Any]) -> int:
    return answer[0].first


def _report_decline(history: list[dict[str, Any]], row: dict[str, Any]) -> None:
    before = [other for other in history if "validation" in other]
    if before:
        best = max(before, key=lambda other: other["validation"])
        if best["validation"] - row["validation"] > DECLINE * max(best["validation_se"], row["validation_se"]):
            log.warning(
                "evolve: the mean scores %.0f, after %.0f in generation %d, which is kept",
                row["validation"],
                best["validation"],
                best["generation"],
            )


def _mean_key(stage: Stage, generation: int) -> str:
    return stage.key(f"means/{generation:06d}.safetensors")


def _progress(evolution: Evolution, generations: int, history: list[dict[str, Any]]) -> Progress:
    metrics = {}
    if history:
        metrics = {"env_steps": history[-1]["env_steps"], "best": history[-1]["best"], "mean": history[-1]["mean"]}
        validated = [row for row in history if "validation" in row]
        if validated:
            metrics["score"] = validated[-1]["validation"]
    return Progress("evolve", evolution.generation, generations, "generations", metrics)
