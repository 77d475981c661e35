"""Which keys and buttons stand for which actions, and how C's output becomes actions, for each game."""

from dataclasses import asdict, dataclass
from typing import Any

from gymnasium import Env

from wm.envs import Game
from wm.envs.anygym import AnyGame
from wm.envs.carracing import BRAKE, GAS, CarRacing
from wm.envs.doom import Doom
from wm.errors import UserError

ARROWS = {
    "LEFT": ("ArrowLeft", "KeyA", "←"),
    "RIGHT": ("ArrowRight", "KeyD", "→"),
    "UP": ("ArrowUp", "KeyW", "↑"),
    "DOWN": ("ArrowDown", "KeyS", "↓"),
}
DIGITS = "1234567890"
MINUS = "\u2212"
REST = ("NOOP", "NOTHING")  # what environments call it when nothing is done


@dataclass(frozen=True)
class Number:
    """One number of an action: its bar on the page."""

    name: str
    low: float
    high: float
    rest: float = 0.0
    """What it is while no key is held."""
    pace: float = 1.0
    """The share of the way to its goal that it moves in a step: below 1 a key turns the wheel step by step."""


@dataclass(frozen=True)
class Key:
    """While it is held, the number `index` goes to `value`."""

    codes: tuple[str, ...]
    """KeyboardEvent.code of each; the button works without any."""
    label: str
    name: str
    index: int
    value: float


@dataclass(frozen=True)
class Controls:
    numbers: tuple[Number, ...]
    keys: tuple[Key, ...]
    squash: dict[str, Any]
    """How C's output becomes an action: a name that the page knows, with what it takes."""
    choice: bool = False
    """One number is 1 and all others are 0; the last one chosen stays where there is none for rest."""

    def description(self) -> dict[str, Any]:
        return {
            "numbers": [asdict(number) for number in self.numbers],
            "keys": [asdict(key) for key in self.keys],
            "choice": self.choice,
        }


def controls_of(game: Game) -> Controls:
    if isinstance(game, CarRacing):
        return _car_racing()
    if isinstance(game, Doom):
        return _doom()
    if isinstance(game, AnyGame):
        return _choice(_meanings(game)) if game.discrete else _box(game.low.tolist(), game.high.tolist())
    raise UserError(f"no keys are known for {game.name}: add them in wm/play/controls.py")


def _arrow(direction: str, name: str, index: int, value: float) -> Key:
    *codes, label = ARROWS[direction]
    return Key(tuple(codes), label, name, index, value)


def _car_racing() -> Controls:
    """Gentler than the keys of the real game: at full lock and full gas the car spins, in the dream too."""
    numbers = (Number("steering", -1, 1, pace=0.4), Number("gas", 0, 1, pace=0.5), Number("brake", 0, 1, pace=0.5))
    keys = (
        _arrow("LEFT", "steer left", 0, -0.6),
        _arrow("RIGHT", "steer right", 0, 0.6),
        _arrow("UP", "gas", 1, 0.6),
        _arrow("DOWN", "brake", 2, 0.6),
    )
    return Controls(numbers, keys, {"kind": "car", "gas": GAS, "brake": BRAKE})


def _doom() -> Controls:
    keys = (_arrow("LEFT", "move left", 0, -1), _arrow("RIGHT", "move right", 0, 1))
    return Controls((Number("move", -1, 1),), keys, {"kind": "thirds"})


def _choice(names: list[str]) -> Controls:
    keys, rest = [], next((index for index, name in enumerate(names) if name.upper() in REST), None)
    for index, name in enumerate(names):
        digit = DIGITS[index : index + 1]
        *arrows, arrow = ARROWS.get(name.upper(), ("",))
        codes = (*arrows, *([f"Digit{digit}"] if digit else []))
        keys.append(Key(codes, arrow or digit or str(index), name.lower().replace("_", " "), index, 1))
    numbers = [Number(key.name, 0, 1, rest=float(index == rest)) for index, key in enumerate(keys)]
    return Controls(tuple(numbers), tuple(keys), {"kind": "choice"}, choice=True)


def _box(lows: list[float], highs: list[float]) -> Controls:
    """A key for less and one for more of each number: 1 and 2 for the first, 3 and 4 for the second, and so on."""
    numbers, keys = [], []
    for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
        name = f"action {index}"
        numbers.append(Number(name, low, high, rest=min(max(0.0, low), high), pace=0.4))
        for side, (value, sign) in enumerate(((low, MINUS), (high, "+"))):
            digit = DIGITS[2 * index + side : 2 * index + side + 1]
            arrow = (("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp"))[index][side] if index < 2 else None
            codes = tuple(code for code in (f"Digit{digit}" if digit else None, arrow) if code)
            keys.append(Key(codes, digit or sign, f"{name} {sign}", index, value))
    return Controls(tuple(numbers), tuple(keys), {"kind": "box", "low": lows, "high": highs})


def _meanings(game: AnyGame) -> list[str]:
    """The environment's own names for its actions, where it has some."""
    env = game.make()
    try:
        inner: Env = env.unwrapped
        given: list[Any] = getattr(inner, "get_action_meanings", list)()
    finally:
        env.close()
    names = [str(name) for name in given]
    return names if len(names) == game.actions else [f"action {index}" for index in range(game.actions)]
