"""The VAE-GAN in training: three optimisers in turns, on the VAE's data, and an eye on collapse."""

import torch
from torch import Tensor, nn

from wm.config.schema import Vision
from wm.envs import Game
from wm.errors import Failure
from wm.models.vaegan import Discriminator, Losses, Played, play, route, turns, variance
from wm.runs.shards import DataSet
from wm.seeds import derive
from wm.training.learner import below
from wm.training.vision import VisionLearner

BETAS = (0.5, 0.999)  # of Adam: two that push each other need less momentum (Radford et al., 2015)
SATURATED = 0.05  # cross entropy below which the discriminator has nothing left to tell V
ALIKE = 0.1  # share of the frames' variance below which samples of the prior are all one
WATCHED = 3  # measurements in a row that have to say so


class VaeGanLearner(VisionLearner):
    """The held-out loss is the VAE's, in pixels: both kinds share one curve, and divergence shows in it. But it does
    not say how sharp V is, and the losses of three that move say nothing: the newest weights are the result.
    """

    newest = True

    def __init__(self, section: Vision, game: Game, seed: int, data: DataSet, device: str):
        super().__init__(section, game, seed, data, device)
        torch.manual_seed(derive(self.seed, "vision", "discriminator"))
        self.discriminator = Discriminator().to(device)
        self.optimisers = {
            "adam_encoder": self._adam(self.model.encoder()),
            "adam_decoder": self._adam(self.model.decoder()),
            "adam_discriminator": self._adam(list(self.discriminator.parameters())),
        }

    def step(self, number: int, batch: Tensor) -> dict[str, Tensor]:
        self.model.train()
        self.set_rate(number)
        with self.precision():
            losses = self._play(batch, "noise", number).losses
        whose = turns(*torch.stack((losses.real, losses.made)).tolist())
        ramp = min(1.0, number / self.section.gan_ramp)
        route(losses, self.model, self.discriminator, self.section.gamma, ramp, whose)
        for optimiser in self.optimisers.values():
            optimiser.step()  # which leaves alone what has no gradient
        taken = {f"{name}_turns": losses.real.new_tensor(float(turn)) for name, turn in whose._asdict().items()}
        return self._told(losses) | taken

    def losses(self, batch: Tensor, purpose: str, number: int) -> dict[str, Tensor]:
        """For measurements."""
        played, x = self._play(batch, purpose, number), batch / 255
        reconstruction = (played.decoded - x).square().sum(dim=(1, 2, 3)).mean()
        variety = variance(played.samples).mean() / variance(x).mean().clamp(min=1e-8)
        loss = reconstruction + played.losses.prior
        return {"loss": loss, "reconstruction": reconstruction, "variety": variety} | self._told(played.losses)

    def judge(self, rows: list[dict[str, float]]) -> None:
        watched = [row for row in rows if row["step"] > self.section.gan_ramp][-WATCHED:]
        if len(watched) < WATCHED:
            return
        worst = {name: max(row[name] for row in watched) for name in ("held_out_gan", "held_out_variety")}
        if worst["held_out_gan"] < SATURATED:
            what = f"the discriminator is sure of everything, its cross entropy {worst['held_out_gan']:.3f}"
        elif worst["held_out_variety"] < ALIKE:
            what = f"samples of the prior have {worst['held_out_variety']:.1%} of the frames' variance"
        else:
            return
        raise Failure(
            f"vision collapsed by step {int(rows[-1]['step'])}: {what}; start another run with a larger"
            f" --vision.gamma than {self.section.gamma:g}, or a larger --vision.gan-ramp than {self.section.gan_ramp}"
        )

    def state(self) -> dict[str, Tensor]:
        own = {f"discriminator.{name}": value for name, value in self.discriminator.state_dict().items()}
        return super().state() | own

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.discriminator.load_state_dict(below(state, "discriminator"))

    def _play(self, frames: Tensor, purpose: str, number: int) -> Played:
        normal = torch.randn(2, len(frames), self.section.z, generator=self.generator(purpose, number))
        noise, prior = normal.to(self.device, non_blocking=True)
        x, weight = frames / 255, self.section.kl_weight
        return play(self.model, self.discriminator, frames, x, noise, prior, weight)

    def _told(self, losses: Losses) -> dict[str, Tensor]:
        told = {"kl": losses.kl, "likeness": losses.likeness, "gan": losses.gan, "fooling": losses.fooling}
        return {name: value.detach() for name, value in told.items()}

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.section.learning_rate, betas=BETAS, fused=True)
