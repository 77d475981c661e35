"""M's training on sequences of latents."""

import math
from collections.abc import Iterator, Mapping
from itertools import count
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
from wm.training.recording import Batch
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
        rows = min(EVALUATED, 4 * len(test))
        # Spread over all held-out steps.
        steps = (torch.arange(rows, dtype=torch.float64) * GOLDEN % 1 * ends[-1]).long()
        chosen = torch.searchsorted(ends, steps, right=True)
        share = (steps - (ends - lengths)[chosen]) / lengths[chosen]
        self.measured = self.episodes.windows(test[chosen], self.starts(test[chosen], share))  # (3, B)
        self.reward_weight = 1 / self._variance_of_rewards() if section.reward_scaled else 1.0

    def starts(self, episodes: Tensor, share: Tensor) -> Tensor:
        """First steps of the windows at these relative positions of their episodes.

        Windows may reach beyond both ends and are then moved inside, so that all steps are equally likely to be in
        one. If only windows inside were drawn, hardly any would have an episode's last step (for 1,000 steps and
        windows of 256, one in 745), and M would not learn how long episodes end.
        """
        length, lengths = self.section.sequence, self.episodes.lengths[episodes]
        starts = (share * (lengths + length - 1)).long() - (length - 1)
        return starts.clamp(min=0).minimum((lengths - length).clamp(min=0))

    def host_batches(self, start: int) -> Iterator[Batch]:
        """Windows drawn uniformly over all steps: an episode in proportion to its length, then a window in it."""
        for number in count(start):
            generator = self.generator("order", number)
            rows = torch.multinomial(
                self.weights_of_training, self.section.batch, replacement=True, generator=generator
            )
            episodes = self.training[rows]
            starts = self.starts(episodes, torch.rand(len(episodes), generator=generator))
            mirrored = torch.rand(len(episodes), generator=generator) < 0.5 if self.mirror else None
            windows = self.episodes.windows(episodes, starts, mirrored)
            yield windows, self.noise(len(episodes), "noise", number)

    def noise(self, rows: int, purpose: str, number: int) -> Tensor:
        """(B, T, Z)"""
        shape = (rows, self.section.sequence, self.model.z)
        return torch.randn(shape, generator=self.generator(purpose, number))

    def held_out(self) -> Iterator[tuple[Batch, float]]:
        for number, windows in enumerate(self.measured.split(16, dim=1)):
            rows = windows.shape[1]
            yield self.on_device((windows, self.noise(rows, "held out", number))), rows

    def sequences(self, batch: Batch) -> Sequences:
        return self.episodes.sequences(batch[0], self.section.sequence)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        sequences = self.sequences(batch)
        z, prediction = self.expect(sequences, batch[1])
        clip = self.section.reward_clip or math.inf
        return losses(
            prediction,
            z_next=torch.roll(z, -1, dims=1),  # the last step has no successor and is masked
            next_mask=_without_last(sequences.next_mask),
            mask=sequences.mask,
            reward=sequences.reward.clamp(-clip, clip),
            done=sequences.done,
            next_action=torch.roll(sequences.a, -1, dims=1),
            done_weight=self.section.done_weight,
            reward_weight=self.reward_weight,
        )

    def _variance_of_rewards(self) -> float:
        """That of the training episodes, as M learns them; 1 if all rewards are the same."""
        begins, lengths = self.episodes.begins, self.episodes.lengths
        parts = [self.episodes.columns["reward"][begins[one] :][: lengths[one]] for one in self.training]
        clip = self.section.reward_clip or math.inf
        return float(torch.cat(parts).clamp(-clip, clip).double().var(correction=0)) or 1.0

    def expect(self, sequences: Sequences, noise: Tensor) -> tuple[Tensor, Prediction]:
        """z sampled with this noise (B, T, Z), and M's prediction from it."""
        z = draw(sequences.mu, sequences.logvar, noise)  # new in each batch: M learns the spread, not one sample
        first = torch.zeros_like(sequences.mask) if self.section.previous_done else None
        return z, self.model(z, sequences.a, previous_done=first, resets=False)[0]  # no sequence spans two episodes

    @torch.no_grad()
    def measures(self) -> dict[str, Any]:
        """Baselines for M's held-out NLL on the same samples, and how well it predicts rewards and ends."""
        self.model.eval()
        held, rewards, ends = [], [], []
        for batch, weight in self.held_out():
            sequences = self.sequences(batch)
            with self.precision():
                z, prediction = self.expect(sequences, batch[1])
            held.append((z, sequences.next_mask, weight))
            steps = sequences.mask > 0
            if prediction.reward is not None:
                rewards.append(torch.stack((prediction.reward, sequences.reward))[:, steps].cpu())
            if prediction.done is not None:
                ends.append(torch.stack((prediction.done, sequences.done))[:, steps].cpu())
        columns, begins, lengths = self.episodes.columns, self.episodes.begins, self.episodes.lengths
        parts = [slice(int(begins[one]), int(begins[one] + lengths[one])) for one in self.training]
        found = baselines(((columns["mu"][part], columns["logvar"][part]) for part in parts), held)
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
