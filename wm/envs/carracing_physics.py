"""CarRacing's physics with less Python around it; every bit of positions, rewards and ends is the game's own.

Box2D's solver takes about 25 microseconds a step and cannot be shortened without changing bits. What the game adds
around it can: `Car.step` here does the same arithmetic in the same order with Python floats instead of numpy scalars,
and reads Box2D's vectors through references that stay valid for a car's life. The tiles of the road are sensors, which
the solver skips, so they need no body each: Box2D walks the list of all bodies five times a step. The hull takes part
in no contact that counts and is left out of collision detection.
"""

import math
from typing import Any

import Box2D
import numpy as np
from gymnasium.envs.box2d import car_dynamics
from gymnasium.envs.box2d.car_dynamics import (
    ENGINE_POWER,
    FRICTION_LIMIT,
    SIZE,
    WHEEL_MOMENT_OF_INERTIA,
    WHEEL_R,
)
from gymnasium.envs.box2d.car_racing import FPS

DT = 1.0 / FPS
RADIUS = 1.0 * WHEEL_R * SIZE
STIFFNESS = 205000 * SIZE * SIZE
ON_ROAD, ON_GRASS = FRICTION_LIMIT * 1.0, FRICTION_LIMIT * 0.6  # a tile's own friction is always 1
BRAKING = 15  # radians per second
SKID_POINTS = 30  # in one mark on the ground


class Wheel:
    """A wheel's state. The vectors are Box2D's own and change as the body moves."""

    __slots__ = (
        "body",
        "brake",
        "gas",
        "joint",
        "omega",
        "phase",
        "rotation",
        "skid_particle",
        "skid_start",
        "steer",
        "tiles",
        "velocity",
    )

    def __init__(self, body: Any):
        self.body, self.joint = body, body.joint
        self.velocity, self.rotation = body.linearVelocity, body.transform.q
        self.gas = self.brake = self.steer = self.phase = self.omega = 0.0
        self.tiles: set[Tile] = set()
        self.skid_start: Any = None
        self.skid_particle: Any = None
        body.userData = None  # it was the body itself, a cycle
        body.fixtures[0].userData = self

    @property
    def position(self) -> Any:
        return self.body.position


class Car(car_dynamics.Car):
    """The game's car. `skids`: it leaves marks, which only the game's own drawing for people shows."""

    def __init__(self, world: Any, angle: float, x: float, y: float, skids: bool = False):
        super().__init__(world, angle, x, y)
        self.skids = skids
        for fixture in self.hull.fixtures:
            fixture.filterData = Box2D.b2Filter(maskBits=0)
        self.wheels = [Wheel(body) for body in self.wheels]
        self.position, self.velocity = self.hull.position, self.hull.linearVelocity

    def control(self, steer: float, gas: float, brake: float):
        """The game's `steer`, `gas` and `brake`."""
        front_left, front_right, rear_left, rear_right = self.wheels
        front_left.steer = front_right.steer = steer
        gas = min(max(gas, 0.0), 1.0)
        rear_left.gas = rear_right.gas = rear_left.gas + min(gas - rear_left.gas, 0.1)
        front_left.brake = front_right.brake = rear_left.brake = rear_right.brake = brake

    def step(self, dt: float = DT):
        power = dt * ENGINE_POWER
        for wheel in self.wheels:
            # the motor of the steering
            joint = wheel.joint
            speed = 50.0 * (wheel.steer - joint.angle)
            joint.motorSpeed = 3.0 if speed > 3.0 else -3.0 if speed < -3.0 else speed

            # speeds forwards, along (-sin, cos), and sideways, along (cos, sin)
            rotation, velocity = wheel.rotation, wheel.velocity
            cos, sin, vx, vy = rotation.c, rotation.s, velocity.x, velocity.y
            forwards, sideways = -sin * vx + cos * vy, cos * vx + sin * vy

            # the engine and the brake
            omega = wheel.omega
            if wheel.gas:
                omega += power * wheel.gas / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
            brake = wheel.brake
            if brake >= 0.9:
                omega = 0.0
            elif brake > 0:
                slower = BRAKING * brake
                if slower > abs(omega):
                    omega = 0.0
                else:
                    omega += -slower if omega > 0 else slower
            wheel.phase += omega * dt

            # friction, up to its limit
            limit = ON_ROAD if wheel.tiles else ON_GRASS
            along = (-forwards + omega * RADIUS) * STIFFNESS
            across = -sideways * STIFFNESS
            force = math.sqrt(along * along + across * across)
            if self.skids:
                self._skid(wheel, force > 2.0 * limit)
            if force > limit:
                along = along / force * limit
                across = across / force * limit
            wheel.omega = omega - dt * along * RADIUS / WHEEL_MOMENT_OF_INERTIA
            wheel.body.ApplyForceToCenter((across * cos + along * -sin, across * sin + along * cos), True)

    def _skid(self, wheel: Wheel, slips: bool):
        grass = not wheel.tiles
        if not slips:
            wheel.skid_start = wheel.skid_particle = None
        elif (mark := wheel.skid_particle) and mark.grass == grass and len(mark.poly) < SKID_POINTS:
            mark.poly.append(tuple(wheel.position))
        elif wheel.skid_start is None:
            wheel.skid_start = wheel.position
        else:
            wheel.skid_particle = self._create_particle(wheel.skid_start, wheel.position, grass)
            wheel.skid_start = None

    def draw(self, *arguments: Any, **options: Any):
        for body, wheel in zip(self.drawlist, self.wheels, strict=False):  # the hull is the last in the list
            body.phase = wheel.phase
        super().draw(*arguments, **options)

    def destroy(self):
        for wheel in self.wheels:
            wheel.body.fixtures[0].ClearUserData()
        self.wheels = [wheel.body for wheel in self.wheels]
        super().destroy()


class Tile:
    """A piece of the road: what the game keeps in a body's attributes."""

    __slots__ = ("color", "fixtures", "idx", "road_friction", "road_visited", "userData")

    color: np.ndarray
    idx: int
    road_friction: float
    road_visited: bool
    userData: Any

    def __init__(self, fixture: Any):
        self.fixtures = [fixture]
        fixture.userData = self


class Ground:
    """Stands in for the world while the game lays its road: each tile is a fixture of this one body."""

    def __init__(self, world: Any):
        self.world, self.body = world, world.CreateBody(Box2D.b2BodyDef(type=Box2D.b2_staticBody))
        self.tiles: list[Tile] = []

    def CreateStaticBody(self, fixtures: Any) -> Tile:
        # the game then calls the tile its own userData: a cycle, which `destroy` breaks
        tile = Tile(self.body.CreateFixture(fixtures))
        self.tiles.append(tile)
        return tile

    def destroy(self):
        for tile in self.tiles:  # Box2D holds a reference to each, which outlives the body
            tile.fixtures[0].ClearUserData()
            del tile.userData
        self.world.DestroyBody(self.body)


class Contacts(Box2D.b2ContactListener):
    """Which tiles a wheel is on, and what a new one is worth. All contacts are of a wheel and a tile."""

    def __init__(self, env: Any):
        super().__init__()
        self.env = env

    def BeginContact(self, contact: Any):
        wheel, tile = _wheel_and_tile(contact)
        wheel.tiles.add(tile)
        if not tile.road_visited:
            self.env.visit(tile)

    def EndContact(self, contact: Any):
        wheel, tile = _wheel_and_tile(contact)
        wheel.tiles.discard(tile)


def _wheel_and_tile(contact: Any) -> tuple[Wheel, Tile]:
    one, other = contact.fixtureA.userData, contact.fixtureB.userData
    return (other, one) if type(one) is Tile else (one, other)
