"""The episodes of a generation and of a validation as units of work."""

from collections.abc import Iterator, Sequence

import numpy as np

from wm.config.schema import Evolve
from wm.envs import Game
from wm.errors import UserError
from wm.evolution.evaluation import DreamUnit, GameUnit
from wm.seeds import derive, training_episode, validation_episode

DRAWS = 50  # attempts to find an episode that is hard enough, per episode


def tracks_of(section: Evolve, game: Game, seed: int, generation: int, replayed: Sequence[int] = ()) -> list[int]:
    """The seeds of this generation's episodes: replayed ones, then new ones of at least the configured hardness."""
    found = list(replayed)
    for number in range(DRAWS * section.episodes):
        track = training_episode(seed, "evolve", generation, number)
        if not section.hardness or game.hardness(track) >= section.hardness:
            found.append(track)
        if len(found) == section.episodes:
            return found
    raise UserError(
        f"too few episodes of {game.name} have hardness {section.hardness} or more: lower --evolve.hardness"
    )


def game_units(
    section: Evolve, game: Game, seed: int, generation: int, thetas: np.ndarray, tracks: Sequence[int]
) -> Iterator[GameUnit]:
    """All (candidate, track) pairs in order, `unit_episodes` of them in each unit."""
    count = len(thetas) * section.episodes
    for first in range(0, count, section.unit_episodes):
        pairs = range(first, min(first + section.unit_episodes, count))
        candidates = [pair // section.episodes for pair in pairs]
        yield GameUnit(
            name=f"generation {generation}, episodes from {first}",
            thetas=thetas[candidates[0] : candidates[-1] + 1],
            owner=tuple(candidate - candidates[0] for candidate in candidates),
            seeds=tuple(tracks[pair % section.episodes] for pair in pairs),
            steps=game.max_steps,
            patience=section.patience,
            noise=derive(seed, "evolve", "noise", generation, first),
            first=first,
        )


def dream_units(section: Evolve, seed: int, generation: int, thetas: np.ndarray) -> Iterator[DreamUnit]:
    """Each unit has some candidates with all dreams of the generation, about `unit_episodes` dreams."""
    each = max(1, section.unit_episodes // section.episodes)
    for first in range(0, len(thetas), each):
        name = f"generation {generation}, dreams of candidates from {first}"
        yield DreamUnit(name, thetas[first : first + each], derive(seed, "dream", generation), section.episodes, first)


def validation_units(section: Evolve, game: Game, theta: np.ndarray, unit: int, name: str) -> Iterator[GameUnit]:
    """One candidate in whole episodes on the validation tracks, `unit` of them in each unit."""
    for first in range(0, section.validation_episodes, unit):
        episodes = range(first, min(first + unit, section.validation_episodes))
        yield GameUnit(
            name=f"{name}, episodes from {first}",
            thetas=theta[None],
            owner=(0,) * len(episodes),
            seeds=tuple(validation_episode(episode) for episode in episodes),
            steps=game.max_steps,
            patience=0,
            noise=derive("validation", first),
            first=first,
        )
