"""Doom TakeCover: dodge fireballs from monsters that become more; each tic that one survives counts 1.

The game runs in a process of its own (ViZDoom's), which may crash or hang. It is then ended, another one is
started, and the episode is played again up to where it was: seed and actions decide all that happens, so whoever
plays doesn't notice.
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
WIDTH, FAST_WIDTH = 640, 320  # of the screen, in pixels: as published, and in training
SEEN = {640: slice(0, 400), 320: slice(3, 203)}  # V doesn't see the status bar, which grows less than the screen
THIRD = 1 / 3  # an action below minus this goes left, one above it right
LEFT, RIGHT, STAY = [1, 0], [0, 1], [0, 0]  # the buttons
HELD, LONG = 10, 200  # tics for which random policies keep going, at most
SWING = 10, 160  # tics between two turns of those that go to and fro: an episode's mean is in this range
ENGINE = Path(vizdoom.__file__).with_name("vizdoom")
STARTS = 3  # processes that one step may use up before it fails
STEP_SECONDS, START_SECONDS = 60.0, 300.0  # a process that is silent for so long hangs, however crowded the machine


class Doom(Game):
    name = "doom"
    version = "3"
    actions = 1  # left, nowhere, right: -1, 0, 1
    max_steps = MAX_STEPS
    random_steps = 285
    explorations = ("mixture", "held", "independent", "long", "swinging")
    mirror = (-1.0,)

    def make(self, exact: bool = False) -> gymnasium.Env:
        return TakeCover(WIDTH if exact else FAST_WIDTH)

    def squash(self, raw: Tensor) -> Tensor:
        """What the game makes of it: told more than that, M dreams that 1 goes faster than 0.5, and C lives on it."""
        a = raw.tanh()
        return (a > THIRD).to(raw.dtype) - (a < -THIRD).to(raw.dtype)

    def explore(self, kind: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        if kind == "mixture":
            kind = str(rng.choice(self.explorations[1:]))
        if kind not in self.explorations:
            raise ValueError(f"doom explores as {', '.join(self.explorations)}, not as {kind!r}")
        moves = rng.integers(-1, 2, (steps, 1))
        if kind == "held":
            moves = moves.repeat(rng.integers(1, HELD + 1, steps), axis=0)[:steps]
        if kind == "long":  # to the walls and on: M takes for safe what nobody has tried, and C finds out
            moves = moves.repeat(np.exp(rng.uniform(0, np.log(LONG), steps)).astype(int), axis=0)[:steps]
        if kind == "swinging":  # to and fro, each episode at its own pace: some live as long as agents do
            pace = np.exp(rng.uniform(*np.log(SWING)))
            swings = rng.uniform(0.5 * pace, 1.5 * pace, steps).round().astype(int)
            sides = rng.choice((-1, 1)) * np.resize((1, -1), (steps, 1))
            moves = sides.repeat(swings, axis=0)[:steps]
        return moves.astype(np.float32)


class TakeCover(gymnasium.Env[np.ndarray, np.ndarray]):
    """The original: skill 4, 640x480 with the status bar, one tic a step, no weapon, decals or particles.

    What happens doesn't depend on the screen, and drawing it is nearly all that a step costs: half the width takes
    a third of the time, and V sees the same but for 2 grey levels, less than what a tic changes.
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
        self.episode, self.taken = 0, list[list[int]]()  # all that it takes to play the episode again

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode = int(self.np_random.integers(2**31)) if seed is None else seed
        self.taken = []
        self._go_on()
        return self.frame, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.process is not None, "reset comes first"
        a = float(action[0])
        self.taken.append(LEFT if a < -THIRD else RIGHT if a > THIRD else STAY)
        reward, dead, late = self._go_on()
        return self.frame, reward, dead, late, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self.picture

    def close(self) -> None:
        if self.process is not None:
            self.process.end()
            self.process = None

    def _go_on(self) -> tuple[float, bool, bool]:
        """The step that was taken last, or the episode's start; if the process is lost on the way, in another one."""
        for attempt in range(1, STARTS + 1):
            again = self.process is None or attempt > 1
            try:
                if self.process is None:
                    self.process = Process(self.width)
                if again or not self.taken:
                    self.process.begin(self.episode)
                outcome = 0.0, False, False
                for buttons in self.taken if again else self.taken[-1:]:
                    outcome = self.process.act(buttons)
                screen = self.process.screen()  # empty once the episode has ended: the last frame stands
            except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomIsNotRunningException) as error:
                self.close()
                if attempt == STARTS:
                    raise
                log.warning("Doom's process is lost (%s): another one plays from seed %d", error, self.episode)
            else:
                if screen is not None:
                    self.picture = screen
                    seen = screen[SEEN[self.width]]
                    if self.width == WIDTH:  # two steps take less than half as long; a grey level of difference at most
                        seen = cv2.resize(seen, (320, 200), interpolation=cv2.INTER_AREA)
                    self.frame = cv2.resize(seen, FRAME[:2], interpolation=cv2.INTER_AREA)
                return outcome
        raise AssertionError("unreachable")


class Process:
    """One process of ViZDoom, which is ended if it is silent for too long, and outlives neither us nor its use."""

    def __init__(self, width: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="doom-")
        self.busy = 0.0  # when it will have taken too long over what it does now; 0 is idle
        self.game = _game(Path(self.folder.name), width)
        with _watched(self, START_SECONDS):
            self.game.init()
        # It doesn't notice when we are killed: a shell that waits for our end of a pipe to close ends it then.
        clean = 'read _; kill -9 "$1"; rm -rf "$2" /dev/shm/ViZDoom*"$3"'
        words = ["/bin/sh", "-c", clean, "sh", str(self.pid), self.folder.name, self.game.get_instance_id()]
        self.guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self.end = weakref.finalize(self, _end, self.game, self.guard, self.folder)  # at the latest when we end

    def begin(self, seed: int) -> None:
        with _watched(self, START_SECONDS):
            self.game.set_seed(seed)
            self.game.new_episode()

    def act(self, buttons: list[int]) -> tuple[float, bool, bool]:
        """The reward, and whether the player is dead or the time is over."""
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
        with contextlib.suppress(OSError, ValueError):  # it has gone by itself, or hasn't come yet
            os.kill(self.pid, signal.SIGKILL)


def _end(game: vizdoom.DoomGame, guard: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    game.close()
    guard.kill()
    guard.communicate()
    folder.cleanup()


def _game(folder: Path, width: int) -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    # ViZDoom tells nobody its process's number, and leaves its files where that stands.
    start = folder / "start"
    start.write_text(f'#!/bin/sh\ncd {quote(str(folder))} && echo $$ > pid && exec {quote(str(ENGINE))} "$@"\n')
    start.chmod(0o700)
    game.set_vizdoom_path(str(start))
    game.load_config(str(Path(vizdoom.scenarios_path, "take_cover.cfg")))  # the map, two buttons, a reward of 1 a tic
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
    game.set_seed(1)  # else the process draws one; each episode sets its own
    return game


class _Watch(threading.Thread):
    """One thread looks after all of this process's games, so that a step costs two assignments."""

    def __init__(self) -> None:
        super().__init__(name="doom-watch", daemon=True)
        self.games: weakref.WeakSet[Process] = weakref.WeakSet()
        self.start()

    def run(self) -> None:
        while True:
            time.sleep(0.5)
            for game in list(self.games):
                if game.busy and time.monotonic() > game.busy:
                    log.warning("Doom's process hangs and is ended")
                    game.kill()  # the call that waits for it then raises


_watch: _Watch | None = None


@contextlib.contextmanager
def _watched(process: Process, seconds: float):  # type: ignore[no-untyped-def]
    global _watch
    if _watch is None or not _watch.is_alive():  # a fork has no threads
        _watch = _Watch()
    _watch.games.add(process)
    process.busy = time.monotonic() + seconds
    try:
        yield
    finally:
        process.busy = 0.0
