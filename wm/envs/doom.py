"""Doom TakeCover: dodge the fireballs of a growing number of monsters; the reward is 1 per tic survived.

The game runs in a process of ViZDoom, which may crash or hang. It is then replaced, and the episode is replayed up to
the last step: the game is a function of the seed and the actions, so the agent sees no difference.
"""

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from pathlib import Path
from shlex import quote
from typing import Any

import cv2
import gymnasium
import numpy as np
import vizdoom
from gymnasium.spaces import Box
from torch import Tensor

from wm.envs.game import FRAME, Game

log = logging.getLogger(__name__)

MAX_STEPS = 2100  # tics, a minute of the game
WIDTH, FAST_WIDTH = 640, 320  # of the screen in pixels: of the original game, and for training
SEEN = {
    640: slice(0, 400),
    320: slice(3, 203),
}  # rows without the status bar, by width; the bar does not scale with the screen
THIRD = 1 / 3  # an action below -1/3 moves left, above 1/3 right
LEFT, RIGHT, STAY = [1, 0], [0, 1], [0, 0]  # the buttons
HELD, LONG = 10, 200  # maximum tics for which random policies hold an action
SWING = 10, 160  # range of an episode's mean number of tics between turns of the swinging policy
ENGINE = Path(vizdoom.__file__).with_name("vizdoom")
STARTS = 3  # processes that are started for one step before it fails
STEP_SECONDS, START_SECONDS = 60.0, 300.0  # a process without an answer for this long hangs


class Doom(Game):
    name = "doom"
    version = "3"
    actions = 1  # -1, 0, 1: left, stay, right
    max_steps = MAX_STEPS
    random_steps = 285
    explorations = ("mixture", "held", "independent", "long", "swinging")
    mirror = (-1.0,)

    def make(self, exact: bool = False) -> gymnasium.Env:
        return TakeCover(WIDTH if exact else FAST_WIDTH)

    def squash(self, raw: Tensor) -> Tensor:
        """One of the game's three actions. If M saw continuous ones, it would predict that 1 is faster than 0.5."""
        a = raw.tanh()
        return (a > THIRD).to(raw.dtype) - (a < -THIRD).to(raw.dtype)

    def explore(self, kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        if kind == "mixture":
            kind = str(rng.choice(self.explorations[1:]))
        if kind not in self.explorations:
            raise ValueError(f"the random policy of doom must be one of {', '.join(self.explorations)}, got {kind!r}")
        moves = rng.integers(-1, 2, (steps, 1))
        if kind == "held":
            moves = moves.repeat(rng.integers(1, HELD + 1, steps), axis=0)[:steps]
        if kind == "long":  # reaches the walls; without such data M predicts that walls are safe, and C exploits it
            moves = moves.repeat(np.exp(rng.uniform(0, np.log(LONG), steps)).astype(int), axis=0)[:steps]
        if kind == "swinging":  # back and forth, at another pace in each episode: some live as long as agents
            pace = np.exp(rng.uniform(*np.log(SWING)))
            swings = rng.uniform(0.5 * pace, 1.5 * pace, steps).round().astype(int)
            sides = rng.choice((-1, 1)) * np.resize((1, -1), (steps, 1))
            moves = sides.repeat(swings, axis=0)[:steps]
        return moves.astype(np.float32)


class TakeCover(gymnasium.Env[np.ndarray, np.ndarray]):
    """The original game: skill 4, 640x480 with the status bar, one tic per step, no weapon, decals or particles.

    The resolution does not affect the game, and rendering takes most of a step: half the width takes a third of the
    time, and V's frames differ by at most 2 grey levels, less than from one tic to the next.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 35}  # noqa: RUF012  (gymnasium's own convention)
    render_mode = "rgb_array"

    def __init__(self, width: int = WIDTH) -> None:
        self.observation_space = Box(0, 255, FRAME, np.uint8)
        self.action_space = Box(-1, 1, (1,), np.float32)
        self.width = width
        self.process: Process | None = None
        self.frame: np.ndarray = np.zeros(FRAME, np.uint8)
        self.picture: np.ndarray = np.zeros((width * 3 // 4, width, 3), np.uint8)
        self.episode, self.taken = 0, list[list[int]]()  # the seed and buttons, to replay the episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode = int(self.np_random.integers(2**31)) if seed is None else seed
        self.taken = []
        self._advance()
        return self.frame, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.process is not None, "call reset before step"
        a = float(action[0])
        self.taken.append(LEFT if a < -THIRD else RIGHT if a > THIRD else STAY)
        reward, dead, timeout = self._advance()
        return self.frame, reward, dead, timeout, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self.picture

    def close(self) -> None:
        if self.process is not None:
            self.process.end()
            self.process = None

    def _advance(self) -> tuple[float, bool, bool]:
        """Take the newest step or start the episode; if the process fails, replay the episode in another one."""
        for attempt in range(1, STARTS + 1):
            replay = self.process is None or attempt > 1
            try:
                if self.process is None:
                    self.process = Process(self.width)
                if replay or not self.taken:
                    self.process.begin(self.episode)
                outcome = 0.0, False, False
                for buttons in self.taken if replay else self.taken[-1:]:
                    outcome = self.process.act(buttons)
                screen = self.process.screen()  # None after the end of the episode: the last frame is kept
            except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomIsNotRunningException) as error:
                self.close()
                if attempt == STARTS:
                    raise
                log.warning(
                    "the Doom process failed (%s): replaying the episode with seed %d in another one",
                    error,
                    self.episode,
                )
            else:
                if screen is not None:
                    self.picture = screen
                    seen = screen[SEEN[self.width]]
                    if self.width == WIDTH:  # two steps are twice as fast and differ by at most 1 grey level
                        seen = cv2.resize(seen, (320, 200), interpolation=cv2.INTER_AREA)
                    self.frame = cv2.resize(seen, FRAME[:2], interpolation=cv2.INTER_AREA)
                return outcome
        raise AssertionError("unreachable")


class Process:
    """A process of ViZDoom. It is killed if it hangs, and ends with this process or when it is no longer used."""

    def __init__(self, width: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="doom-")
        self.deadline = 0.0  # of the current call; 0 is idle
        self.game = _game(Path(self.folder.name), width)
        with _watched(self, START_SECONDS):
            self.game.init()
        # ViZDoom survives if this process is killed, so a shell waits until this end of a pipe closes, and kills it.
        clean = 'read _; kill -9 "$1"; rm -rf "$2" /dev/shm/ViZDoom*"$3"'
        words = ["/bin/sh", "-c", clean, "sh", str(self.pid), self.folder.name, self.game.get_instance_id()]
        self.guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self.end = weakref.finalize(self, _end, self.game, self.guard, self.folder)  # at exit at the latest

    def begin(self, seed: int) -> None:
        with _watched(self, START_SECONDS):
            self.game.set_seed(seed)
            self.game.new_episode()

    def act(self, buttons: list[int]) -> tuple[float, bool, bool]:
        """Reward, terminated (the player is dead), truncated (the time is over)."""
        with _watched(self, STEP_SECONDS):
            reward = self.game.make_action(buttons, 1)
        over, dead = self.game.is_episode_finished(), self.game.is_player_dead()
        return reward, over and dead, over and not dead

    def screen(self) -> np.ndarray | None:
        """(height, width, 3)"""
        state = self.game.get_state()
        return None if state is None else state.screen_buffer

    @property
    def pid(self) -> int:
        return int(Path(self.folder.name, "pid").read_text())

    def kill(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended, or has not started yet
            os.kill(self.pid, signal.SIGKILL)


def _end(game: vizdoom.DoomGame, guard: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    game.close()
    guard.kill()
    guard.communicate()
    folder.cleanup()


def _game(folder: Path, width: int) -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    # ViZDoom does not expose its process id and writes files to the working directory.
    start = folder / "start"
    start.write_text(f'#!/bin/sh\ncd {quote(str(folder))} && echo $$ > pid && exec {quote(str(ENGINE))} "$@"\n')
    start.chmod(0o700)
    game.set_vizdoom_path(str(start))
    game.load_config(str(Path(vizdoom.scenarios_path, "take_cover.cfg")))  # the map, two buttons, reward 1 per tic
    game.set_doom_config_path(str(folder / "doom.ini"))
    game.set_doom_skill(4)
    game.set_episode_start_time(14)
    game.set_episode_timeout(MAX_STEPS)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{width}X{width * 3 // 4}"))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_render_hud(True)
    game.set_render_weapon(False)
    game.set_render_decals(False)
    game.set_render_particles(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_seed(1)  # instead of a random one; each episode sets its own
    return game


class _Watch(threading.Thread):
    """One thread watches all games of this process, so that watching a step costs two assignments."""

    def __init__(self) -> None:
        super().__init__(name="doom-watch", daemon=True)
        self.games: weakref.WeakSet[Process] = weakref.WeakSet()
        self.start()

    def run(self) -> None:
        while True:
            time.sleep(0.5)
            for game in list(self.games):
                if game.deadline and time.monotonic() > game.deadline:
                    log.warning("the Doom process hangs: killing it")
                    game.kill()  # the waiting call then raises an exception


_watch: _Watch | None = None


@contextlib.contextmanager
def _watched(process: Process, seconds: float):  # type: ignore[no-untyped-def]
    global _watch
    if _watch is None or not _watch.is_alive():  # threads do not survive a fork
        _watch = _Watch()
    _watch.games.add(process)
    process.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        process.deadline = 0.0
