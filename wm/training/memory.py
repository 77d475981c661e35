"""M's training on sequences of latents."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from wm.config.schema import Memory
from wm.models.build import new_memory
from wm.models.memory import MDNRNN, Prediction, losses
from wm.models.vision import draw
from wm.runs.shards import DataSet
from wm.seeds import derive
from wm.training.diagnostics import auc, baselines, correlation, reliability
from wm.training.learner import Learner, split
from wm.training.sequences import Episodes, Sequences
from wm.training.weights import start_from

EVALUATED = 256  # held-out sequences of an evaluation
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 are spread evenly, for any number of them


class MemoryLearner(Learner):
    model: MDNRNN
    section: Memory

    def __init__(
        self,
        section: Memory,
        fields: Mapping[str, Any],  # the frozen fields of the config, by flag
        data: DataSet,
        device: str,
        mirror: tuple[float, ...] = (),  # of actions, if there are mirrored latents
    ):
        torch.manual_seed(derive(fields["seed"] + section.seed, "memory", "untrained"))
        model = new_memory(fields, fields["vision.z"])
        start_from(model, section.init, "memory")
        super().__init__("memory", model, section, fields["seed"], device)
        self.mirror = mirror
        self.episodes = Episodes(data, device, self.mirror)
        training, test = (torch.from_numpy(part) for part in split(len(data.lengths), section.held_out))
        self.training = training
        self.weights_of_training = self.episodes.lengths[training].double()
        lengths = self.episodes.lengths[test]
        ends = lengths.cumsum(0)
        count = min(EVALUATED, 4 * len(test))
        steps = (
            torch.arange(count, dtype=torch.float64) * GOLDEN % 1 * ends[-1]
        ).long()  # spread over all held-out steps
        chosen = torch.searchsorted(ends, steps, right=True)
        share = (steps - (ends - lengths)[chosen]) / lengths[chosen]
        self.measured = (test[chosen], self.windows(test[chosen], share))
        self.reward_weight = 1 / self._variance_of_rewards() if section.reward_scaled else 1.0

    def windows(self, episodes: Tensor, share: Tensor) -> Tensor:
        """First steps of the windows at these relative positions of their episodes.

        Windows may reach beyond both ends and are then moved inside, so that all steps are equally likely to be in
        one. If only windows inside were drawn, hardly any would have an episode's last step (for 1,000 steps and
        windows of 256, one in 745), and M would not learn how long episodes end.
        """
        length, lengths = self.section.sequence, self.episodes.lengths[episodes]
        starts = (share * (lengths + length - 1)).long() - (length - 1)
        return starts.clamp(min=0).minimum((lengths - length).clamp(min=0))

    def batches(self, start: int) -> Iterator[Sequences]:
        """Windows drawn uniformly over all steps: an episode in proportion to its length, then a window in it."""
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
            z_next=torch.roll(z, -1, dims=1),  # the last step has no successor and is masked
            next_mask=_without_last(batch.next_mask),
            mask=batch.mask,
            reward=batch.reward.clamp(-clip, clip),
            done=batch.done,
            next_action=torch.roll(batch.a, -1, dims=1),
            done_weight=self.section.done_weight,
            reward_weight=self.reward_weight,
        )

    def _variance_of_rewards(self) -> float:
        """That of the training episodes, as M learns them; 1 if all rewards are the same."""
        begins, lengths = self.episodes.begins, self.episodes.lengths
        parts = [self.episodes.columns["reward"][begins[one] :][: lengths[one]] for one in self.training]
        clip = self.section.reward_clip or math.inf
        return float(torch.cat(parts).clamp(-clip, clip).double().var(correction=0)) or 1.0

    def expect(self, batch: Sequences, purpose: str, number: int) -> tuple[Tensor, Prediction]:
        """z sampled for this batch, and M's prediction from it."""
        generator = self.generator(purpose, number)
        noise = torch.randn(batch.mu.shape, generator=generator).to(self.device)
        z = draw(batch.mu, batch.logvar, noise)  # new samples in each batch: M learns the spread, not one sample
        first = torch.zeros_like(batch.mask) if self.section.previous_done else None  # no sequence spans two episodes
        return z, self.model(z, batch.a, previous_done=first)[0]

    @torch.no_grad()
    def measures(self) -> dict[str, Any]:
        """Baselines for M's held-out NLL on the same samples, and how well it predicts rewards and ends."""
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
            odds = logit - math.log(self.section.done_weight)  # the weight in the loss raised them by this
            metrics |= {"done_auc": auc(logit, done), "done_reliability": reliability(odds.sigmoid(), done)}
        return metrics

    def clip(self) -> None:
        torch.nn.utils.clip_grad_value_(self.model.parameters(), self.section.clip)


def _without_last(mask: Tensor) -> Tensor:
    """(B, T): the last step's successor is not in the sequence, even if the episode continues."""
    kept = mask.clone()
    kept[:, -1] = 0
    return kept
