"""The training of a VAE-GAN: three optimisers, with the VAE's data, and detection of collapse."""

import torch
from torch import Tensor, nn

from wm.config.schema import Vision
from wm.envs import Game
from wm.errors import Failure
from wm.models.vaegan import Discriminator, Losses, Played, play, route, turns, variance
from wm.runs.shards import DataSet
from wm.seeds import derive
from wm.training.learner import with_prefix
from wm.training.vision import VisionLearner

BETAS = (0.5, 0.999)  # of Adam; GANs need less momentum (Radford et al., 2015)
SATURATED = 0.05  # cross entropy below which the discriminator gives V no useful gradient
ALIKE = 0.1  # fraction of the frames' variance below which samples of the prior count as identical
WATCHED = 3  # consecutive evaluations that must agree


class VaeGanLearner(VisionLearner):
    """The held-out loss is the VAE's, in pixels, so that both kinds of V have comparable curves.

    It does not measure sharpness, and neither do the GAN's losses, so the newest weights are the result.
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
            optimiser.step()  # skips parameters without a gradient
        updated = {f"{name}_turns": losses.real.new_tensor(float(turn)) for name, turn in whose._asdict().items()}
        return self._logged(losses) | updated

    def losses(self, batch: Tensor, purpose: str, number: int) -> dict[str, Tensor]:
        """Losses for evaluations."""
        played, x = self._play(batch, purpose, number), batch / 255
        reconstruction = (played.decoded - x).square().sum(dim=(1, 2, 3)).mean()
        variety = variance(played.samples).mean() / variance(x).mean().clamp(min=1e-8)
        loss = reconstruction + played.losses.prior
        return {"loss": loss, "reconstruction": reconstruction, "variety": variety} | self._logged(played.losses)

    def check_progress(self, rows: list[dict[str, float]]) -> None:
        watched = [row for row in rows if row["step"] > self.section.gan_ramp][-WATCHED:]
        if len(watched) < WATCHED:
            return
        worst = {name: max(row[name] for row in watched) for name in ("held_out_gan", "held_out_variety")}
        if worst["held_out_gan"] < SATURATED:
            reason = f"the discriminator has won with a cross entropy of {worst['held_out_gan']:.3f}"
        elif worst["held_out_variety"] < ALIKE:
            reason = f"samples of the prior have {worst['held_out_variety']:.1%} of the frames' variance"
        else:
            return
        raise Failure(
            f"vision collapsed by step {int(rows[-1]['step'])}: {reason}; start another run with a larger"
            f" --vision.gamma than {self.section.gamma:g}, or a larger --vision.gan-ramp than {self.section.gan_ramp}"
        )

    def state(self) -> dict[str, Tensor]:
        own = {f"discriminator.{name}": value for name, value in self.discriminator.state_dict().items()}
        return super().state() | own

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.discriminator.load_state_dict(with_prefix(state, "discriminator"))

    def _play(self, frames: Tensor, purpose: str, number: int) -> Played:
        normal = torch.randn(2, len(frames), self.section.z, generator=self.generator(purpose, number))
        noise, prior = normal.to(self.device, non_blocking=True)
        x, weight = frames / 255, self.section.kl_weight
        return play(self.model, self.discriminator, frames, x, noise, prior, weight)

    def _logged(self, losses: Losses) -> dict[str, Tensor]:
        logged = {"kl": losses.kl, "likeness": losses.likeness, "gan": losses.gan, "fooling": losses.fooling}
        return {name: value.detach() for name, value in logged.items()}

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.section.learning_rate, betas=BETAS, fused=True)
