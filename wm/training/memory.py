"""TODO"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from wm.config.fields import of_kind
from wm.config.schema import Config, Memory
from wm.envs import load
from wm.models.build import untrained_memory
from wm.models.memory import MDNRNN, Prediction, losses, sample
from wm.models.vision import draw
from wm.runs.shards import DataSet
from wm.seeds import derive
from wm.training.calibration import auc, reliability
from wm.training.diagnostics import baselines, correlation
from wm.training.learner import Learner, split
from wm.training.sequences import Episodes, Sequences
from wm.training.weights import start_from

MEASURED = 256  # held-out sequences that a measurement looks at


GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, are spread evenly, and so are the first few of them


class MemoryLearner(Learner):
    model: MDNRNN
    section: Memory

    def __init__(self, config: Config, data: DataSet, device: str):
        section = config.memory
        torch.manual_seed(derive(config.seed + section.seed, "memory", "untrained"))
        model = untrained_memory(of_kind(config, "bits"), config.vision.z)
        start_from(model, section.init, "memory")
        super().__init__("memory", model, section, config.seed, device)
        self.mirror = load(config.game).mirror if config.latents.mirrored else ()
        self.episodes = Episodes(data, device, self.mirror)
        training, test = (torch.from_numpy(part) for part in split(len(data.lengths), section.held_out))
        self.training = training
        self.weights_of_training = self.episodes.lengths[training].double()
        lengths = self.episodes.lengths[test]
        ends = lengths.cumsum(0)
        count = min(MEASURED, 4 * len(test))
        steps = (torch.arange(count, dtype=torch.float64) * GOLDEN % 1 * ends[-1]).long()  # among all that are held out
        chosen = torch.searchsorted(ends, steps, right=True)
        share = (steps - (ends - lengths)[chosen]) / lengths[chosen]
        self.measured = (test[chosen], self.windows(test[chosen], share))

    def windows(self, episodes: Tensor, share: Tensor) -> Tensor:
        """Where the windows at these shares of their episodes begin.

        Each would contain any step as likely as any other if it could reach beyond both ends; as it can't, it is
        moved inside. Drawn among the whole ones alone, hardly any window would have the last step: of 1,000
        steps and windows of 256 one in 745, and M would not know what long episodes end with.
        """
        length, lengths = self.section.sequence, self.episodes.lengths[episodes]
        starts = (share * (lengths + length - 1)).long() - (length - 1)
        return starts.clamp(min=0).minimum((lengths - length).clamp(min=0))

    def batches(self, start: int) -> Iterator[Sequences]:
        """Windows drawn evenly over all steps: an episode in proportion to its length, then a window in it."""
        number = start
        while True:
            generator = self.generator("order", number)
            rows = torch.multinomial(
                self.weights_of_training, self.section.batch, replacement=True, generator=generator
            )
            episodes = self.training[rows]
            starts = self.windows(episodes, torch.rand(len(episodes), generator=generator))
            mirrored = torch.rand(len(episodes), generator=generator) < 0.5 if self.mirror else None
            yield self.episodes.sequences(episodes, starts, self.section.sequence, mirrored)
            number += 1

    def held_out(self) -> Iterator[tuple[Sequences, float]]:
        for episodes, starts in zip(*(part.split(16) for part in self.measured), strict=True):
            yield self.episodes.sequences(episodes, starts, self.section.sequence), len(episodes)

    def losses(self, batch: Sequences, purpose: str, number: int) -> dict[str, Tensor]:
        z, prediction = self.expect(batch, purpose, number)
        clip = self.section.reward_clip or math.inf
        return losses(
            prediction,
            z_next=torch.roll(z, -1, dims=1),  # the last one has no successor and is masked
            next_mask=_without_last(batch.next_mask),
            mask=batch.mask,
            reward=batch.reward.clamp(-clip, clip),
            done=batch.done,
            next_action=torch.roll(batch.a, -1, dims=1),
            weights={"reward": self.section.reward_weight},
            done_weight=self.section.done_weight,
        )

    def expect(self, batch: Sequences, purpose: str, number: int) -> tuple[Tensor, Prediction]:
        """z as drawn for this batch, and what M makes of it."""
        generator = self.generator(purpose, number)
        noise = torch.randn(batch.mu.shape, generator=generator).to(self.device)
        z = draw(batch.mu, batch.logvar, noise)  # anew for each batch: M learns the spread, not one sample
        dropped = None
        if self.model.training and self.section.dropout:
            dropped = torch.rand((*batch.mask.shape, self.section.hidden), generator=generator).to(self.device)
        first = torch.zeros_like(batch.mask) if self.section.previous_done else None  # no sequence spans two episodes
        seen = z
        if self.model.training and self.section.own:
            seen = self.partly_own(z, batch.a, first, generator)
        return z, self.model(seen, batch.a, previous_done=first, noise=dropped)[0]

    @torch.no_grad()
    def partly_own(self, z: Tensor, a: Tensor, first: Tensor | None, generator: torch.Generator) -> Tensor:
        """z (B, T, Z), but at some steps drawn from what M expects there: so it learns to go on from its own draws.

        In a dream M reads nothing else. Its numbers, each drawn by itself, fit together less well than a frame's, and
        an M that has never met such z believes them: fireballs vanish, and the player drifts. This is scheduled
        sampling (Bengio et al., 2015), all steps at once (Mihaylova and Martins, 2019).
        """
        expected = self.model(z, a, previous_done=first)[0]
        uniform, normal = torch.rand(z.shape, generator=generator), torch.randn(z.shape, generator=generator)
        own = sample(expected, 1.0, uniform.to(self.device), normal.to(self.device))
        shares = 2 * self.section.own * torch.rand((len(z), 1, 1), generator=generator)  # each sequence has its own
        chosen = torch.rand((*z.shape[:2], 1), generator=generator) < shares  # (B, T, 1)
        chosen[:, 0] = False  # nothing foresees the first
        return torch.where(chosen.to(self.device), own.roll(1, dims=1), z)

    @torch.no_grad()
    def measures(self) -> dict[str, Any]:
        """What M's held-out NLL is to be read beside, on the same draws; and how well it foresees rewards and ends."""
        self.model.eval()
        held, rewards, ends = [], [], []
        for number, (batch, weight) in enumerate(self.held_out()):
            with self.precision():
                z, prediction = self.expect(batch, "held out", number)
            held.append((z, batch.next_mask, weight))
            if prediction.reward is not None:
                rewards.append(torch.stack((prediction.reward, batch.reward))[:, batch.mask > 0])
            if prediction.done is not None:
                ends.append(torch.stack((prediction.done, batch.done))[:, batch.mask > 0])
        columns, begins, lengths = self.episodes.columns, self.episodes.begins, self.episodes.lengths
        steps = [slice(int(begins[one]), int(begins[one] + lengths[one])) for one in self.training]
        found = baselines(((columns["mu"][part], columns["logvar"][part]) for part in steps), held)
        metrics: dict[str, Any] = {f"nll_{name}": value for name, value in found.items()}
        if rewards:
            metrics["reward_correlation"] = correlation(*torch.cat(rewards, dim=1))
        if ends:
            logit, done = torch.cat(ends, dim=1)
            odds = logit - math.log(self.section.done_weight)  # the weight in the loss raised them by as much
            metrics |= {"done_auc": auc(logit, done), "done_reliability": reliability(odds.sigmoid(), done)}
        return metrics

    def clip(self) -> None:
        torch.nn.utils.clip_grad_value_(self.model.parameters(), self.section.clip)


def _without_last(mask: Tensor) -> Tensor:
    """(B, T): what lies beyond the sequence is not in it, even if the episode goes on."""
    kept = mask.clone()
    kept[:, -1] = 0
    return kept
