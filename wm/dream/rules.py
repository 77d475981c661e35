"""The rules of a dream: when it ends and how a step is rewarded."""

from dataclasses import dataclass
from typing import Literal

from wm.config.schema import Config
from wm.envs import Game
from wm.errors import UserError


@dataclass(frozen=True)
class Rules:
    steps: int
    """Maximum steps. The paper's Doom: 2,100."""
    tau: float = 1.0
    """Temperature."""
    done: Literal["threshold", "sample", "never"] = "threshold"
    """A dream ends if M's done logit is above 0, with M's probability, or only after the maximum of steps."""
    reward: Literal["head", "survival"] = "survival"
    """Reward of a step: M's prediction, or 1."""
    done_weight: float = 1.0
    """Weight of ends in M's training loss, which multiplies their odds; a sampled done divides by it."""
    lap: float = 0.0
    """A dream ends when its rewards, without the price of each step, add up to this; 0 is never."""
    step_price: float = 0.0
    """What the game subtracts from each step's reward."""

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise UserError(f"the temperature tau must be above 0, got {self.tau}")


def rules_of(config: Config, game: Game) -> Rules:
    section = config.evolve
    return Rules(
        steps=section.dream_steps,
        tau=section.tau,
        done=section.dream_done,
        reward="head" if config.memory.reward else "survival",
        done_weight=config.memory.done_weight,
        lap=game.lap if section.dream_lap else 0.0,
        step_price=game.step_price,
    )
