"""Evolve C: in each generation all candidates play the same new tracks. The result is the best-validated mean."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from wm.agents.artifacts import load_mean, load_models, mean_key
from wm.config.schema import Config, Evolve
from wm.dream.rules import rules_of
from wm.dream.starts import starts_of
from wm.envs import Game, load
from wm.evolution.cma_es import Evolution
from wm.evolution.evaluation import DreamUnit, EvaluateWork, GameUnit
from wm.evolution.objective import Evaluation, clipped, evaluate, most_telling
from wm.evolution.units import dream_units, game_units, tracks_of, validation_units
from wm.evolution.validations import has_reached, has_settled, validated
from wm.models.agent import Models
from wm.models.device import FLOAT32
from wm.pool import Crew, Pool, Progress
from wm.runs.checkpoints import Checkpoints
from wm.runs.curves import write_curves
from wm.runs.manifest import Manifest
from wm.runs.reader import pack
from wm.runs.run import Run, Stage
from wm.runs.storage import sha256
from wm.stages.warm_start import evolution_seed, first_distribution, new_evolution
from wm.statistics import mean_of
from wm.training.tensorboard import event_file

log = logging.getLogger(__name__)

# Values of a generation that are not plotted.
NOT_A_CURVE = ("theta_sha256", "tracks", "spread", "due", "validation_scores")
USUAL = {  # names of metrics in other libraries, with which TensorBoard shows their curves together
    "generation": "step",
    "mean": "rollout/ep_rew_mean",
    "validation": "eval/mean_reward",
    "env_steps": "time/total_timesteps",
}
TIED = 10  # generations between warnings that all candidates score the same
DECLINE = 3.0  # warn if a validation is this many standard errors below the best one


def evolve(run: Run, pool: Pool) -> Manifest:
    """Evolve for all generations, or until a plateau or the target. The result is the best-validated mean."""
    config, section, stage = run.config, run.config.evolve, run.stage("evolve")
    done = stage.complete()
    if done is not None:
        return done
    stage.begin()
    models, inputs = load_models(run)
    game, dreaming = load(config.game), section.where == "dream"
    if dreaming and models.latent == "mu":
        log.warning("in the dream C sees samples of z, in the game only the mean: consider --controller.latent z")
    starts = starts_of(config, run.need("latents"), models.memory) if dreaming and models.memory else None
    rules = rules_of(config, game) if dreaming else None
    playing = EvaluateWork(game, models.without_decoder(), config.threads)
    work = EvaluateWork(game, playing.models, config.threads, rules=rules, starts=starts, device=section.device)
    with ExitStack() as crews:
        if starts and pool.device(section.device) == "cuda":
            dreams = crews.enter_context(pool.crew(work, gpu=True))
            games = crews.enter_context(pool.crew(playing))
        else:
            dreams = games = crews.enter_context(pool.crew(work))
        history = Generations(run, stage, game, models, dreams, games).run()
    rows = validated(history)
    best = max(rows, key=lambda row: row["validation"])
    theta = load_mean(run.storage, stage.folder, best)
    data = pack({"theta": torch.from_numpy(theta)}, {})
    key = stage.key(f"controller-{sha256(data)[:12]}.safetensors")
    run.storage.commit(key, data)
    last = history[-1]
    return stage.commit(
        section.generations,
        inputs=inputs,
        content={"theta": key, "files": {key: sha256(data)}},
        metrics={
            "generation": int(last["generation"]),
            "env_steps": int(last["env_steps"]),
            "sigma": last["sigma"],
            "theta_sha256": last["theta_sha256"],
            "score_of_mean": rows[-1]["validation"],
            "best_generation": int(best["generation"]),
            "best_validation": best["validation"],
            "best_validation_se": best["validation_se"],
            **({"device": "cuda", "float32": FLOAT32} if section.device == "cuda" else {}),
        },
    )


class Generations:
    """Runs generations up to the last one, each followed by a checkpoint.

    A validation runs together with the next generation, so that no worker waits for it. It depends on the mean only,
    so this changes no result.
    """

    def __init__(self, run: Run, stage: Stage, game: Game, models: Models, players: Crew, validators: Crew):
        self.run_, self.stage, self.game, self.models = run, stage, game, models
        self.config, self.section, self.seed = run.config, run.config.evolve, evolution_seed(run.config)
        self.players, self.validators = players, validators
        self.checkpoints = Checkpoints(run.storage, stage.key("checkpoints"))
        self.history: list[dict[str, Any]] = []

    def run(self) -> list[dict[str, Any]]:
        """From the last checkpoint, or the beginning; one row for each generation."""
        section, steps = self.section, 0
        found = self.checkpoints.newest()
        if found:
            self.history = found[1]["history"]
            write_curves(self.run_.storage, self.stage.key("metrics.jsonl"), self.history)  # if they were deleted
            evolution = _resumed(self.config, self.models.controller.size, *found)
        else:
            evolution, steps = first_distribution(self.run_, self.game, self.models)
        self.stage.tell(self._progress(evolution))
        while evolution.generation < section.generations and not self._ended():
            began = time.monotonic()
            row = self._generation(evolution)
            row["env_steps"] += self.history[-1]["env_steps"] if self.history else steps
            row["seconds"] = round(time.monotonic() - began, 3)
            self.history.append(row)
            _warn_of_ties(self.history, section)
            self._save(evolution)
            self.stage.tell(self._progress(evolution))
        if self._validation_due():
            self._validate(evolution)
            self._save(evolution)
            self.stage.tell(self._progress(evolution))
        return self.history

    def _generation(self, evolution: Evolution) -> dict[str, Any]:
        """Evaluate the candidates, and the mean before them if its validation is due."""
        section, number = self.section, evolution.generation
        mean_before, thetas = evolution.mean, evolution.ask()
        tracks: list[int] = []
        units: Iterator[GameUnit | DreamUnit]
        if section.where == "real":
            replayed = most_telling(self.history)[: round(section.again * section.episodes)]
            tracks = tracks_of(section, self.game, self.seed, number, replayed)
            units = game_units(section, self.game, self.seed, number, thetas, tracks)
        else:
            units = dream_units(section, self.seed, number, thetas)
        candidates = Evaluation(units, len(thetas), section.episodes)
        together = self.players is self.validators
        validation = self._validation(number, mean_before) if self._validation_due() else None
        if validation and not together:
            evaluate(self.validators, validation)
        evaluate(self.players, *([validation] if validation and together else []), candidates)
        if validation:
            self._record_validation(number, mean_before, validation)
        fitness = clipped(candidates.scores, section.cut)
        evolution.tell(fitness.mean(axis=1))
        finite = (means := candidates.scores.mean(axis=1))[np.isfinite(means)]
        row: dict[str, Any] = {
            "generation": evolution.generation,
            "env_steps": candidates.steps,
            "best": float(finite.max()),
            "mean": float(finite.mean()),
            "worst": float(finite.min()),
            "sigma": evolution.sigma,
            "theta_sha256": sha256(evolution.mean.tobytes()),
            "time": round(time.time(), 3),
        }
        if evolution.generation % section.validate_every == 0 or evolution.generation == section.generations:
            row["due"] = True  # until it is validated
        if section.again:
            row |= {"tracks": tracks, "spread": np.nanstd(fitness, axis=0).tolist()}
        return row

    def _ended(self) -> bool:
        """Whether the target is reached or the validations have stopped rising."""
        return has_settled(self.history, self.section.plateau) or has_reached(self.history, self.section.target)

    def _validation_due(self) -> bool:
        """Whether the mean after the last generation still has to be validated."""
        return bool(self.history) and "due" in self.history[-1]

    def _validation(self, generation: int, mean: np.ndarray) -> Evaluation:
        # A unit of dreams is larger than what one process should play of the real game.
        unit = self.section.unit_episodes if self.section.where == "real" else self.config.score.unit_episodes
        units = validation_units(self.section, self.game, mean, unit, f"validation of generation {generation}")
        return Evaluation(units, 1, self.section.validation_episodes)

    def _validate(self, evolution: Evolution) -> None:
        """After the last generation."""
        validation = self._validation(evolution.generation, evolution.mean)
        evaluate(self.validators, validation)
        self._record_validation(evolution.generation, evolution.mean, validation)

    def _record_validation(self, generation: int, mean: np.ndarray, validation: Evaluation) -> None:
        """Keep the mean and add its score to the last generation's row."""
        score = mean_of(validation.scores[0])
        packed = pack({"theta": torch.from_numpy(mean)}, {})
        self.run_.storage.put(mean_key(self.stage.folder, generation), packed)
        row: dict[str, Any] = {
            "validation": score.mean,
            "validation_se": score.error,
            "validation_std": score.std,
            "validation_scores": validation.scores[0].tolist(),
        }
        _warn_of_decline(self.history[:-1], row)
        del self.history[-1]["due"]
        self.history[-1] |= row

    def _save(self, evolution: Evolution) -> None:
        """Write the curves, then the checkpoint."""
        storage, stage = self.run_.storage, self.stage
        curves = [{key: value for key, value in one.items() if key not in NOT_A_CURVE} for one in self.history]
        named = [{USUAL.get(key, key): value for key, value in one.items()} for one in curves]
        events = event_file("evolve", named)
        write_curves(storage, stage.key("metrics.jsonl"), self.history)
        storage.put(stage.key("events.out.tfevents.0.evolve"), events)
        arrays, plain = evolution.state()
        self.checkpoints.save(
            evolution.generation,
            {name: torch.from_numpy(array) for name, array in arrays.items()},
            plain | {"history": self.history},
            keep="",
        )

    def _progress(self, evolution: Evolution) -> Progress:
        metrics = {}
        if self.history:
            metrics = {name: self.history[-1][name] for name in ("env_steps", "best", "mean")}
            if rows := validated(self.history):
                metrics["score"] = rows[-1]["validation"]
        return Progress("evolve", evolution.generation, self.section.generations, "generations", metrics)


def _resumed(config: Config, size: int, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> Evolution:
    """The distribution after the last checkpoint."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    evolution = new_evolution(config, size, config.evolve.sigma0, axes=arrays["axes"])
    evolution.load_state(arrays, info)
    log.info("evolve resumes from generation %d", evolution.generation)
    return evolution


def _warn_of_decline(history: list[dict[str, Any]], row: dict[str, Any]) -> None:
    if before := validated(history):
        best = max(before, key=lambda other: other["validation"])
        if best["validation"] - row["validation"] > DECLINE * max(best["validation_se"], row["validation_se"]):
            log.warning(
                "evolve: the mean scores %.0f, less than the %.0f of generation %d, which is kept",
                row["validation"],
                best["validation"],
                best["generation"],
            )


def _warn_of_ties(history: list[dict[str, Any]], section: Evolve) -> None:
    """Without differences between candidates CMA-ES learns nothing. Said once, and then for every tenth generation."""
    tied = 0
    for row in reversed(history):
        if row["best"] != row["worst"]:
            break
        tied += 1
    if tied % TIED != 1:
        return
    cure = f"a higher --evolve.patience than {section.patience} or 0, " if section.patience else ""
    log.warning(
        "evolve: all candidates score %g, in %d generations now, so there is nothing to learn from: try %sa larger"
        " --evolve.sigma0, more --evolve.episodes, or a game that rewards more often",
        history[-1]["best"],
        tied,
        cure,
    )
