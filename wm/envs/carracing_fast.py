"""CarRacing-v3 for training: the game's physics, rewards and ends bit by bit, its picture from another drawing.

    gymnasium.make("wm.envs:wm/CarRacing-v3")           # 96x96 observations with the instruments, as the game's
    gymnasium.make("wm.envs:wm/CarRacing-v3", size=64)  # 64x64 without them, as the paper's V sees them

Observations differ from the game's by about 1% in the mean. `render` is the game's own drawing.
"""

from typing import Any

import numpy as np
from gymnasium.envs.box2d import car_racing
from gymnasium.envs.box2d.car_racing import FPS, PLAYFIELD
from gymnasium.error import InvalidAction
from gymnasium.spaces import Box
from gymnasium.utils import EzPickle

from wm.envs.carracing_drawing import Painting
from wm.envs.carracing_physics import Car, Contacts, Ground, Tile
from wm.envs.carracing_scaling import PICTURE, SIDE

NOTHING = np.zeros((SIDE, SIDE, 3), np.uint8)


class CarRacing(car_racing.CarRacing):
    """Takes the arguments of gymnasium's CarRacing, and the size of its observations: 96 or 64."""

    metadata = {"render_modes": ["human", "rgb_array", "state_pixels"], "render_fps": FPS}  # noqa: RUF012

    def __init__(
        self,
        render_mode: str | None = None,
        verbose: bool = False,
        lap_complete_percent: float = 0.95,
        domain_randomize: bool = False,
        continuous: bool = True,
        size: int = 96,
    ):
        if size not in (SIDE, PICTURE):
            raise ValueError(f"size must be {SIDE} or {PICTURE}, got {size!r}")
        super().__init__(render_mode, verbose, lap_complete_percent, domain_randomize, continuous)
        EzPickle.__init__(self, render_mode, verbose, lap_complete_percent, domain_randomize, continuous, size)
        self.observation_space = Box(0, 255, (size, size, 3), np.uint8)
        self.ground: Ground | None = None
        self.painting = self._painting(size)

    def _painting(self, size: int) -> Painting | None:
        return Painting(size)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super(car_racing.CarRacing, self).reset(seed=seed)
        self._destroy()
        self.contacts = self.world.contactListener = Contacts(self)  # Box2D does not keep it alive
        self.reward = self.prev_reward = 0.0
        self.tile_visited_count = 0
        self.t = 0.0
        self.new_lap = False
        self.road_poly: list = []
        if self.domain_randomize:
            self._reinit_colors((options or {}).get("randomize", True))
        while not self._create_track():
            if self.verbose:
                print("no track from these checkpoints, trying others")
        self.car: Any = Car(self.world, *self.track[0][1:4], skids=self.render_mode is not None)
        if self.painting is not None:
            self.painting.paint(self.road_poly, self.bg_color, self.grass_color, self.road_color)
        if self.render_mode == "human":
            self.render()
        return self.step(None)[0], {}

    def _create_track(self) -> bool:
        world, self.ground = self.world, Ground(self.world)
        self.world = self.ground
        try:
            created = super()._create_track()
        finally:
            self.world = world
        if not created:
            self.ground.destroy()
            self.ground = None
        return created

    def _destroy(self):
        if self.ground is not None:
            self.world.contactListener = None  # contacts end with the bodies; nobody has to know
            self.ground.destroy()
            self.car.destroy()
            self.ground = None
            self.road: Any = []

    def visit(self, tile: Tile):
        """A wheel touches a tile for the first time."""
        tile.road_visited = True
        tile.color[:] = self.road_color
        self.reward += 1000.0 / len(self.track)
        self.tile_visited_count += 1
        if tile.idx == 0 and self.tile_visited_count / len(self.track) > self.lap_complete_percent:
            self.new_lap = True
        if self.painting is not None:
            self.painting.visit(tile.idx)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        car = self.car
        if action is not None:
            if self.continuous:
                steer, gas, brake = action.tolist()
                car.control(-steer, gas, brake)
            else:
                if not self.action_space.contains(action):
                    raise InvalidAction(f"invalid action {action!r}, must be in {self.action_space}")
                steer = -0.6 * (action == 1) + 0.6 * (action == 2)
                car.control(steer, 0.2 * (action == 3), 0.8 * (action == 4))
        car.step(1.0 / FPS)
        self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)
        self.t += 1.0 / FPS
        self.state = self._observe()
        reward, terminated, info = 0.0, False, {}
        if action is not None:
            self.reward -= 0.1
            reward = self.reward - self.prev_reward
            self.prev_reward = self.reward
            if self.tile_visited_count == len(self.track) or self.new_lap:
                terminated, info = True, {"lap_finished": True}
            x, y = car.position.x, car.position.y
            if abs(x) > PLAYFIELD or abs(y) > PLAYFIELD:
                terminated, info, reward = True, {"lap_finished": False}, -100
        if self.render_mode == "human":
            self.render()
        return self.state, reward, terminated, False, info

    def _observe(self) -> np.ndarray:
        assert self.painting is not None
        return self.painting.frame(self.car, self.t, self.reward)


class Blind(CarRacing):
    """CarRacing-v3 with no drawing at all, for what needs no frames."""

    def __init__(self):
        super().__init__(lap_complete_percent=1.0, size=64)
        EzPickle.__init__(self)

    def _painting(self, size: int) -> None:
        return None

    def _observe(self) -> np.ndarray:
        return NOTHING
