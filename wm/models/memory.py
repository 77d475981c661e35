"""M, the memory: an LSTM with a mixture-density head (Ha & Schmidhuber, 2018, section 2.2 and appendix A.2).

It models P(z[t+1] | a[t], z[t], h[t]) as an independent mixture of K Gaussians for each dimension of z (Graves, 2013;
Bishop, 1994), and optionally the step's reward, whether the episode is done, and the next action.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Without bounds, a dimension of z that never changes drives its sigma to 0 and the loss to NaN. The code uses hardtanh,
# which is clamp with a cheaper gradient.
LOGSIGMA = (-7.0, 5.0)
DEVIATION = 1e6  # in sigmas; its square is far below fp32's maximum


class State(NamedTuple):
    """State of the LSTM; C sees h, and in Doom also c."""

    h: Tensor  # (B, H)
    c: Tensor  # (B, H)


class Prediction(NamedTuple):
    """M's prediction of the next step; a disabled head gives None."""

    logpi: Tensor  # (..., Z, K), normalised over K
    mu: Tensor  # (..., Z, K)
    logsigma: Tensor  # (..., Z, K)
    reward: Tensor | None  # (...), in the game's unit
    done: Tensor | None  # (...), a logit
    next_action: Tensor | None  # (..., A)


class MDNRNN(nn.Module):
    """M for whole sequences (training) and for single steps (agent and dream).

    Both layers are plain matrices: `gates` maps [input, h] to the LSTM's four gates with one bias vector, which gives
    the paper's parameter count; `heads` maps h to all predictions. A step of the dream is two matrix products.
    """

    def __init__(
        self,
        *,
        z: int,
        actions: int,
        hidden: int,
        mixtures: int = 5,
        reward: bool = False,
        done: bool = False,
        next_action: bool = False,
        previous_done: bool = False,
    ) -> None:
        super().__init__()
        self.z, self.actions, self.hidden, self.mixtures = z, actions, hidden, mixtures
        self.previous_done = previous_done
        self.inputs = z + actions + previous_done
        self.outputs = [mixtures * z] * 3 + [int(reward), int(done), actions * next_action]
        self.gates = nn.Linear(self.inputs + hidden, 4 * hidden)  # rows: input, forget, cell, output
        self.heads = nn.Linear(hidden, sum(self.outputs))
        with torch.no_grad():
            self.gates.bias[hidden : 2 * hidden] += 1  # forget gates start open (Gers et al., 2000)

    def initial(self, batch: int, device: torch.device | str | None = None) -> State:
        zeros = torch.zeros(batch, self.hidden, device=device or self.gates.weight.device)
        return State(zeros, zeros.clone())

    def forward(
        self,
        z: Tensor,  # (B, T, Z)
        a: Tensor,  # (B, T, A)
        state: State | None = None,
        previous_done: Tensor | None = None,  # (B, T), 1 at the first step of an episode
        resets: bool = True,  # False if no episode begins after a sequence's first step; to find out, a GPU has to wait
    ) -> tuple[Prediction, State]:
        """Predictions after each step of whole sequences, and the state after the last step."""
        batch, length = z.shape[:2]
        x = self._inputs(z, a, previous_done)  # (B, T, inputs)
        h, c = state or self.initial(batch, z.device)
        weight = self.gates.weight.split((self.inputs, self.hidden), dim=1)
        weights = [*weight, self.gates.bias, torch.zeros_like(self.gates.bias)]  # torch requires a second bias
        cuts = [0, length]
        if previous_done is not None and resets:
            # The fused LSTM cannot reset its state within a sequence, so it runs in parts.
            starts = previous_done[:, 1:].any(dim=0).nonzero().flatten() + 1
            cuts = [0, *starts.tolist(), length]
        parts = []
        for begin, end in pairwise(cuts):
            if previous_done is not None:
                keep = 1 - previous_done[:, begin, None].to(h.dtype)  # (B, 1)
                h, c = h * keep, c * keep
            hidden = (h.unsqueeze(0), c.unsqueeze(0))  # (1, B, H)
            with _lstm_precision(z.device.type):
                part, hs, cs = torch.lstm(x[:, begin:end], hidden, weights, True, 1, 0.0, self.training, False, True)
            h, c = hs.squeeze(0), cs.squeeze(0)
            parts.append(part)
        output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (B, T, H)
        return self.predict(output), State(h, c)

    def advance(self, z: Tensor, a: Tensor, state: State, previous_done: Tensor | None = None) -> State:
        """One step without the heads, which an agent in the real game does not need."""
        h, c = state
        assert h.shape == c.shape == (len(z), self.hidden), (h.shape, c.shape, z.shape)
        if previous_done is not None:
            keep = 1 - previous_done[:, None].to(h.dtype)  # (B, 1)
            h, c = h * keep, c * keep
        x = torch.cat((self._inputs(z, a, previous_done), h), dim=-1)  # (B, inputs + H)
        i, f, g, o = self.gates(x).chunk(4, dim=-1)  # (B, H) each
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * _tanh(g)
        return State(torch.sigmoid(o) * _tanh(c), c)

    def predict(self, h: Tensor) -> Prediction:
        """The heads on h (..., H)."""
        *mixture, reward, done, action = self.heads(h).float().split(self.outputs, dim=-1)
        # Z is the innermost dimension in memory, so that each of the K components is contiguous.
        logits, mu, logsigma = (x.unflatten(-1, (self.mixtures, self.z)) for x in mixture)  # (..., K, Z)
        return Prediction(
            logpi=logits.log_softmax(dim=-2).transpose(-1, -2),
            mu=mu.transpose(-1, -2),
            logsigma=F.hardtanh(logsigma, *LOGSIGMA).transpose(-1, -2),
            reward=reward.squeeze(-1) if reward.shape[-1] else None,
            done=done.squeeze(-1) if done.shape[-1] else None,
            next_action=action if action.shape[-1] else None,
        )

    def _inputs(self, z: Tensor, a: Tensor, previous_done: Tensor | None) -> Tensor:
        assert z.shape[-1] == self.z, (z.shape, self.z)
        assert a.shape == (*z.shape[:-1], self.actions), (a.shape, z.shape, self.actions)
        if not self.previous_done:
            return torch.cat((z, a), dim=-1)
        assert previous_done is not None, "this M needs the previous done as an input"
        assert previous_done.shape == z.shape[:-1], (previous_done.shape, z.shape)
        return torch.cat((z, a, previous_done.unsqueeze(-1).to(z.dtype)), dim=-1)


def _lstm_precision(device: str) -> AbstractContextManager:
    """The LSTM stays in fp32, except on CPUs with bf16 instructions.

    oneDNN has no bf16 LSTM for other CPUs. On a GPU, autocast would turn the inputs of cuDNN's LSTM into fp16 instead
    of bf16, which overflows without a scaler of the loss.
    """
    if device == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _tanh(x: Tensor) -> Tensor:
    """tanh from the sigmoid, which torch computes three times as fast on a CPU; accurate to 1e-7."""
    return 2 * torch.sigmoid(2 * x) - 1


def nll(prediction: Prediction, target: Tensor) -> Tensor:
    """Negative log-likelihood of the target (..., Z) in each dimension, in fp32. (..., Z)"""
    logpi, mu, logsigma = (x.float() for x in prediction[:3])  # (..., Z, K)
    deviation = F.hardtanh((target.float().unsqueeze(-1) - mu) * torch.exp(-logsigma), -DEVIATION, DEVIATION)
    log_density = torch.addcmul(logpi - logsigma, deviation, deviation, value=-0.5)  # (..., Z, K)
    return 0.5 * math.log(2 * math.pi) - log_density.logsumexp(dim=-1)


def sample(prediction: Prediction, tau: float, uniform: Tensor, normal: Tensor) -> Tensor:
    """Sample the next z (..., Z), with mixture logits divided by tau and noise scaled by sqrt(tau) (section 2.2; Ha &
    Eck, 2017).

    The caller passes the noise, each (..., Z): `uniform` in [0, 1) chooses the component, `normal` is the deviation.
    """
    logits, mu, logsigma = (x.transpose(-1, -2).clone() for x in prediction[:3])  # (..., K, Z)
    return choose(logits, mu, logsigma, tau, uniform, normal)


@torch.no_grad()  # the operations are in place
def choose(
    logits: Tensor,  # (..., K, Z), not necessarily normalised
    mu: Tensor,  # (..., K, Z)
    logsigma: Tensor,  # (..., K, Z)
    tau: float | Tensor,  # or (..., 1)
    uniform: Tensor,  # (..., Z)
    normal: Tensor,  # (..., Z)
) -> Tensor:
    """Like `sample`, in a faster memory layout and in place: logits, mu and logsigma are overwritten."""
    tau = torch.as_tensor(tau, dtype=normal.dtype, device=normal.device)
    weight = logits.sub_(logits.amax(dim=-2, keepdim=True)).div_(tau.unsqueeze(-1)).exp_()
    weights = weight.unbind(dim=-2)  # K times (..., Z)
    for before, after in pairwise(weights):
        after.add_(before)  # cumulative sums of unnormalised weights
    torch.le(weight, (uniform * weights[-1]).unsqueeze(-2), out=weight)  # 1, ..., 1, 0, ..., 0
    weights[-1].zero_()
    for before, after in reversed(list(pairwise(weights))):
        torch.sub(before, after, out=after)
    torch.sub(1, weights[0], out=weights[0])  # 1 at the chosen component, else 0
    mu, logsigma = mu.mul_(weight).sum(dim=-2), logsigma.mul_(weight).sum(dim=-2)
    return logsigma.clamp_(*LOGSIGMA).exp_().mul_(normal).mul_(tau.sqrt()).add_(mu)


def losses(
    prediction: Prediction,
    *,
    z_next: Tensor,  # (B, T, Z)
    next_mask: Tensor,  # (B, T), 1 if there is a next frame: not at an episode's last step
    mask: Tensor,  # (B, T), 1 at steps, 0 in the padding
    reward: Tensor | None = None,  # (B, T)
    done: Tensor | None = None,  # (B, T), 1 if the step ended the episode (a time limit does not count)
    next_action: Tensor | None = None,  # (B, T, A)
    done_weight: float = 10.0,
    reward_weight: float = 1.0,
) -> dict[str, Tensor]:
    """The training loss and its parts, all scalars: means over the steps at which the mask is 1.

    "nll": mean over Z, masked by `next_mask`.
    "reward": squared error of the reward in the game's unit, times `reward_weight`, masked by `mask`.
    "done": binary cross entropy with positives weighted by `done_weight` (10 in the authors' Doom), masked by `mask`.
    "next_action": squared error, mean over A, masked by `next_mask`.
    "loss": the sum of the parts.
    """
    parts = {"nll": _mean(nll(prediction, z_next).mean(dim=-1), next_mask)}
    if prediction.reward is not None:
        assert reward is not None, "this M predicts the reward: pass reward"
        parts["reward"] = reward_weight * _mean((prediction.reward - reward) ** 2, mask)
    if prediction.done is not None:
        assert done is not None, "this M predicts done: pass done"
        weight = prediction.done.new_full((), done_weight)  # without a copy to the device
        entropy = F.binary_cross_entropy_with_logits(prediction.done, done.float(), reduction="none", pos_weight=weight)
        parts["done"] = _mean(entropy, mask)
    if prediction.next_action is not None:
        assert next_action is not None, "this M predicts the next action: pass next_action"
        parts["next_action"] = _mean(((prediction.next_action - next_action) ** 2).mean(dim=-1), next_mask)
    loss = torch.stack(list(parts.values())).sum()
    return {"loss": loss, **parts}


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    assert values.shape == mask.shape, (values.shape, mask.shape)
    return (values * mask).sum() / mask.sum().clamp(min=1)
