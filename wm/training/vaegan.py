"""The training of a VAE-GAN: three optimisers, with the VAE's data, and detection of collapse."""

import torch
from torch import Tensor

from wm.config.schema import Vision
from wm.envs import Game
from wm.errors import Failure
from wm.models.vaegan import BOTH, Discriminator, Losses, Played, Turns, play, route, turns, variance
from wm.runs.shards import DataSet
from wm.seeds import derive
from wm.training.learner import with_prefix
from wm.training.recording import Batch
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
            "adam_encoder": self.adam(self.model.encoder(), betas=BETAS),
            "adam_decoder": self.adam(self.model.decoder(), betas=BETAS),
            "adam_discriminator": self.adam(self.discriminator.parameters(), betas=BETAS),
        }
        self.ramp = torch.zeros((), device=self.device)  # weight of the GAN loss

    def set_rate(self, number: int) -> None:
        super().set_rate(number)
        self.ramp.fill_(min(1.0, number / self.section.gan_ramp))

    def update(self, batch: Batch) -> dict[str, Tensor]:
        with self.precision():
            losses = self._play(batch).losses
        if self.cuda:  # all gradients are computed, and a paused network's optimiser skips its step on the device
            whose = turns(losses.real.double(), losses.made.double())
            self._route(losses, BOTH)
            for name, turn in whose._asdict().items():
                self.optimisers[f"adam_{name}"].found_inf = torch.logical_not(turn).float()  # type: ignore[attr-defined]
        else:
            whose = turns(*torch.stack((losses.real, losses.made)).tolist())
            self._route(losses, whose)
        for optimiser in self.optimisers.values():
            optimiser.step()  # skips parameters without a gradient
        updated = {f"{name}_turns": torch.as_tensor(turn).float() for name, turn in whose._asdict().items()}
        return self._logged(losses) | updated

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses for evaluations."""
        played, x = self._play(batch), self.frames_of(batch) / 255
        reconstruction = (played.decoded - x).square().sum(dim=(1, 2, 3)).mean()
        variety = variance(played.samples).mean() / variance(x).mean().clamp(min=1e-8)
        loss = reconstruction + played.losses.prior
        return {"loss": loss, "reconstruction": reconstruction, "variety": variety} | self._logged(played.losses)

    def noise(self, rows: int, purpose: str, number: int) -> Tensor:
        """Of the reconstructions, and of the samples of the prior. (2, B, Z)"""
        return torch.randn(2, rows, self.section.z, generator=self.generator(purpose, number))

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

    def _play(self, batch: Batch) -> Played:
        frames = self.frames_of(batch)
        noise, prior = batch[1]
        return play(self.model, self.discriminator, frames, frames / 255, noise, prior, self.section.kl_weight)

    def _route(self, losses: Losses, whose: Turns) -> None:
        route(losses, self.model, self.discriminator, self.section.gamma, self.ramp, whose)

    def _logged(self, losses: Losses) -> dict[str, Tensor]:
        logged = {"kl": losses.kl, "likeness": losses.likeness, "gan": losses.gan, "fooling": losses.fooling}
        return {name: value.detach() for name, value in logged.items()}
