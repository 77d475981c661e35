"""TODO"""

from dataclasses import dataclass
from typing import Literal

from wm.config.schema import Config
from wm.envs import load
from wm.errors import UserError


@dataclass(frozen=True)
class Rules:
    """How a dream is played."""

    steps: int
    """The cap: an episode ends here at the latest. The paper's Doom: 2,100."""
    tau: float | tuple[float, float] = 1.0
    """Temperature, or the range that each episode draws its own from."""
    done: Literal["threshold", "sample", "never"] = "threshold"
    """An episode ends where M's done logit is above 0, with M's probability, or at the cap alone."""
    reward: Literal["head", "survival"] = "survival"
    """What a step is worth: what M predicts, or 1."""
    dropout: float = 0.0
    """Dropout on the h that M's heads see, which makes the dream harder to cheat."""
    done_weight: float = 1.0
    """How much more an end counted in M's training, which raised its odds by that: a sampled done takes it back."""
    lap: float = 0.0
    """A dream ends when its rewards, the price of each step aside, add up to this; 0: it doesn't."""
    step_price: float = 0.0

    @property
    def taus(self) -> tuple[float, float]:
        low, high = self.tau if isinstance(self.tau, tuple) else (self.tau, self.tau)
        if not 0 < low <= high:
            raise UserError(f"temperature {self.tau} has to be above 0, and a range has to rise")
        return low, high


def rules_of(config: Config) -> Rules:
    """How dreams are played in a run with this config."""
    section, game = config.evolve, load(config.game)
    return Rules(
        steps=section.dream_steps,
        tau=(section.tau, section.tau_high) if section.tau_high else section.tau,
        done=section.dream_done,
        reward="head" if config.memory.reward else "survival",
        dropout=section.dream_dropout,
        done_weight=config.memory.done_weight,
        lap=game.lap if section.dream_lap else 0.0,
        step_price=game.step_price,
    )
