"""The games, one file each, behind one small interface (`Game`).

An environment is a `gymnasium.Env` with a 64x64x3 uint8 frame as observation and a float32 vector as action. `render`
returns the game's own picture.

Importing this package registers CarRacing with fast rendering as `wm/CarRacing-v3` in gymnasium.
"""

from importlib import import_module

import gymnasium

from wm.envs.game import FRAME, Game
from wm.errors import UserError

__all__ = ["FRAME", "GAMES", "Game", "load"]

GAMES = {"car-racing": "wm.envs.carracing:CarRacing", "doom": "wm.envs.doom:Doom"}

gymnasium.register(
    id="wm/CarRacing-v3",
    entry_point="wm.envs.carracing_fast:CarRacing",
    max_episode_steps=1000,
    reward_threshold=900,
)


def load(name: str) -> Game:
    """The game of that name; gym:ID is any environment of gymnasium."""
    if name.startswith("gym:"):
        from wm.envs.anygym import any_game

        return any_game(name)
    if name not in GAMES:
        raise UserError(f"--game must be {' or '.join(GAMES)}, or gym:ID for an environment of gymnasium, got {name}")
    module, attribute = GAMES[name].split(":")
    game: Game = getattr(import_module(module), attribute)()
    return game
