"""Pictures of V's reconstructions and M's predictions.

`reconstructions`, `traversal` and `filmstrip` describe a picture as a FrameGrid, which `render` draws for a run's
folder and `wm.report.frames` lays out as HTML. `vision_pictures` and `memory_pictures` write PNG files to a storage.
Samples come from a generator with a fixed seed, so the same model and data give the same picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from wm.models.memory import MDNRNN, Prediction, sample
from wm.models.vision import Vision, draw, encode_in_batches, kl_divergence
from wm.runs.storage import Storage
from wm.training.diagnostics import correlation
from wm.training.sequences import Sequences
from wm.training.tensorboard import picture_file
from wm.visuals.drawing import BLUE, GAP, GREY, Curve, enlarged, framed, grid, legend, panel, png, sheet, stacked, title

TAUS = (0.1, 0.5, 1.0, 1.3)
WARM_UP = 20  # real steps before M's dreams start
REAL, EXPECTED = Curve(np.empty(0), GREY, 2), Curve(np.empty(0), BLUE, 1, np.empty(0))
LEFT = 160  # pixels for labels, to align stacked grids
ALIKE = 0.04  # mean squared difference below which two frames count as similar


@dataclass(frozen=True)
class Cell:
    """One frame, or several from top to bottom."""

    frames: tuple[np.ndarray, ...]  # (64, 64, 3) each, uint8 or in [0, 1]
    caption: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class FrameGrid:
    """Labelled rows of frames. The text is ASCII, as OpenCV's font has nothing else."""

    title: str
    note: str  # one line
    rows: tuple[Row, ...]


def vision_pictures(vision: Vision, frames: Tensor, storage: Storage, folder: str) -> list[str]:
    """Write reconstructions and a traversal of z from held-out frames (B, 64, 64, 3); returns their keys."""
    encoded = EncodedFrames(vision, frames)
    pictures = {"reconstructions": render(reconstructions(encoded)), "traversal": render(traversal(vision, encoded))}
    return _write(storage, folder, pictures)


def memory_pictures(
    memory: MDNRNN,
    vision: Vision,
    held: Sequences,
    storage: Storage,
    folder: str,
    taus: Sequence[float] = TAUS,
) -> list[str]:
    """Write dreams and one-step predictions from held-out sequences; returns their keys."""
    dreams = filmstrip(memory, vision, held, taus)
    return _write(storage, folder, {"filmstrip": render(dreams), "predictions": predictions(memory, held)})


def render(picture: FrameGrid) -> np.ndarray:
    """Draw the grid with labels on the left and captions above; equal captions of adjacent rows appear once."""
    parts = [title(picture.title, picture.note)]
    for captions, rows in groupby(picture.rows, lambda row: [cell.caption for cell in row.cells]):
        labels, cells = zip(*((row.label, [_drawn(cell) for cell in row.cells]) for row in rows), strict=True)
        parts.append(grid(cells, labels, captions, left=LEFT))
    return stacked(parts)


def _drawn(cell: Cell) -> np.ndarray:
    frames = [enlarged(frame) for frame in cell.frames]
    gap = sheet(GAP, frames[0].shape[1])
    picture = np.concatenate([part for frame in frames for part in (frame, gap)][:-1])
    return framed(picture) if cell.marked else picture


class EncodedFrames:
    """Frames with their latents and reconstructions."""

    def __init__(self, vision: Vision, frames: Tensor):
        device = next(vision.parameters()).device
        with torch.no_grad():
            encoded = encode_in_batches(vision.encode, frames.to(device))
        self.mu, self.logvar = (part.cpu() for part in encoded)  # (B, Z)
        self.frames, self.decoded = frames.cpu(), decoded(vision, self.mu)  # (B, 64, 64, 3)
        self.error = ((self.decoded - self.frames / 255) ** 2).sum(dim=(1, 2, 3))  # (B,)
        self.easiest = self.error.argsort(stable=True)  # (B,), indices by ascending error


def examples(encoded: EncodedFrames, count: int = 8) -> list[tuple[str, list[int]]]:
    """Indices of frames to show: a selection over the whole range of errors, and the largest errors."""
    number = len(encoded.frames)
    evenly = encoded.easiest[(torch.linspace(0.05, 0.95, min(count, number)) * (number - 1)).round().long()]
    hardest = _dissimilar(encoded.frames, encoded.easiest.flip(0), count)
    return [("From easy to hard", evenly.tolist()), ("Largest errors", hardest)]


def reconstructions(encoded: EncodedFrames, columns: int = 8) -> FrameGrid:
    """Frames with their reconstructions below."""
    pairs = list(zip(encoded.frames.numpy(), encoded.decoded.numpy(), strict=True))
    errors = [f"error {error:.1f}" for error in encoded.error.tolist()]
    rows = [
        Row(label, tuple(Cell(pairs[i], errors[i]) for i in chosen)) for label, chosen in examples(encoded, columns)
    ]
    note = "Held-out frames above their reconstructions by V, with the squared error of the frame; lower is better."
    return FrameGrid("Reconstructions", note, tuple(rows))


def traversal(vision: Vision, encoded: EncodedFrames, rows: int = 8) -> FrameGrid:
    """A typical frame, and below it the effect of each of the most active dimensions of z."""
    values, typical = torch.arange(-3.0, 4.0), int(encoded.easiest[len(encoded.easiest) // 2])
    activity = kl_divergence(encoded.mu, encoded.logvar).mean(dim=0)  # (Z,)
    active = activity.argsort(descending=True, stable=True)[:rows]
    mu = encoded.mu[typical]  # (Z,)
    z = mu.repeat(len(active), len(values), 1)  # (rows, values, Z)
    z[torch.arange(len(active)), :, active] = values
    nearest = (values - mu[active, None]).abs().argmin(dim=1).tolist()  # (rows,), to the frame's own value
    captions = [f"{value:+g}" if value else "0" for value in values.tolist()]
    frame, reconstruction = encoded.frames[typical].numpy(), encoded.decoded[typical].numpy()
    found = [Row("typical frame", (Cell((frame,), "frame"), Cell((reconstruction,), "V")))]
    for i, frames, marked in zip(active.tolist(), decoded(vision, z).numpy(), nearest, strict=True):
        cells = [Cell((x,), caption) for x, caption in zip(frames, captions, strict=True)]
        cells[marked] = replace(cells[marked], marked=True)
        found.append(Row(f"z{i}, KL {activity[i]:.1f} nats", tuple(cells)))
    note = (
        "Each row varies one dimension of z around a typical frame, the dimension with the largest mean KL first."
        " Framed: nearest to the frame's own z."
    )
    return FrameGrid("Dimensions of z", note, tuple(found))


def filmstrip(
    memory: MDNRNN,
    vision: Vision,
    held: Sequences,
    taus: Sequence[float] = TAUS,
    columns: int = 9,
    every: int = 8,
) -> FrameGrid:
    """A real sequence as V decodes it, and below it M's dreams from the same start with the same actions."""
    row, begin, end = _most_eventful(held, WARM_UP + 1 + (columns - 1) * every)
    mu, logvar, a = (x[row, begin:end].cpu() for x in (held.mu, held.logvar, held.a))  # (T, Z), (T, A)
    warm = min(WARM_UP, (len(mu) - 1) // 2)
    every = min(every, max(1, (len(mu) - 1 - warm) // (columns - 1)))
    z = draw(mu, logvar, torch.randn(mu.shape, generator=_generator()))
    dreams = dream_along(memory, z, a, warm, taus)  # (R, T - warm, Z)
    strips = torch.cat((mu[None, warm:], dreams))[:, ::every][:, :columns]  # (1 + R, columns, Z)
    frames = decoded(vision, strips).numpy()  # (1 + R, columns, 64, 64, 3)
    captions = ["start", *(f"+{n * every} steps" for n in range(1, frames.shape[1]))]
    labels = ["real, decoded by V", *(f"dream, tau {tau:g}" for tau in taus)]
    rows = (
        Row(label, tuple(Cell((x,), caption) for x, caption in zip(strip, captions, strict=True)))
        for label, strip in zip(labels, frames, strict=True)
    )
    note = (
        f"M sees {warm} real steps before the start and only the real actions after it."
        " A good dream stays similar to the real sequence."
    )
    return FrameGrid("Dreams at several temperatures", note, tuple(rows))


def predictions(memory: MDNRNN, held: Sequences, dimensions: int = 5, steps: int = 200) -> np.ndarray:
    """Curves of M's one-step predictions: the most active dimensions of z, the reward and the end."""
    row, begin, end = _most_eventful(held, steps)
    columns = (held.mu, held.logvar, held.a, held.reward, held.done)
    mu, logvar, a, reward, done = (x[row, :end].cpu() for x in columns)  # (T, Z), (T, Z), (T, A), (T,), (T,)
    z = draw(mu, logvar, torch.randn(mu.shape, generator=_generator()))
    expected = _expected(memory, z, a)
    mean, sigma = moments(expected)  # (T, Z)
    # z[t+1] is predicted at step t, the reward of step t at step t
    after, before = slice(begin + 1, end), slice(begin, end - 1)
    activity = kl_divergence(held.mu, held.logvar)[held.mask > 0].mean(dim=0).cpu()  # (Z,)
    panels = []
    for i in activity.argsort(descending=True, stable=True)[:dimensions].tolist():
        real, guess = mu[after, i], mean[before, i]
        previous = z[before, i]  # the last z that M saw
        note = f"squared error {_error(guess, real)}; if z did not change {_error(previous, real)}"
        panels.append(_compared(f"z{i}", note, begin, real, guess, 2 * sigma[before, i]))
    if expected.reward is not None:
        note = f"correlation {correlation(expected.reward[after], reward[after]):.2f}"
        panels.append(_compared("reward", note, begin, reward[after], expected.reward[after]))
    if expected.done is not None:
        panels.append(_compared("done", "probability", begin, done[after], expected.done[after].sigmoid()))
    heading = title("One-step predictions", "A held-out sequence. M predicts each step from the steps before it.")
    names = legend([("real", REAL), ("M's prediction +- 2 sigma", EXPECTED)])
    return stacked([heading, names, *panels])


@torch.no_grad()
def dream_along(memory: MDNRNN, z: Tensor, a: Tensor, warm: int, taus: Sequence[float], seed: int = 0) -> Tensor:
    """M's dreams (R, T - warm, Z) at R temperatures along a real sequence z (T, Z), a (T, A).

    All start at z[warm] with M's state after the steps before it, and share the real actions and the noise.
    """
    device, rows, generator = memory.gates.weight.device, len(taus), _generator(seed)
    z, a, state = z.to(device), a.to(device), memory.initial(rows)
    not_done = torch.zeros(rows, device=device) if memory.previous_done else None
    dreams: list[Tensor] = []
    now = z[0]
    for t in range(len(z)):
        if t <= warm:
            now = z[t].expand(rows, -1)  # (R, Z)
        else:
            uniform = torch.rand(memory.z, generator=generator).to(device)
            normal = torch.randn(memory.z, generator=generator).to(device)
            logpi, mu, logsigma, *_ = memory.predict(state.h)  # (R, Z, K)
            parts = [Prediction(logpi[r], mu[r], logsigma[r], None, None, None) for r in range(rows)]
            now = torch.stack([sample(p, tau, uniform, normal) for p, tau in zip(parts, taus, strict=True)])
        if t >= warm:
            dreams.append(now)
        state = memory.advance(now, a[t].expand(rows, -1), state, not_done)
    return torch.stack(dreams, dim=1).cpu()


@torch.no_grad()
def decoded(vision: Vision, z: Tensor) -> Tensor:
    """(..., Z) -> (..., 64, 64, 3)"""
    device = next(vision.parameters()).device
    parts = [vision.decode(part.to(device)).cpu() for part in z.flatten(end_dim=-2).split(128)]
    return torch.cat(parts).unflatten(0, z.shape[:-1])


def _dissimilar(frames: Tensor, order: Tensor, count: int) -> list[int]:
    """The first frames in this order, skipping similar ones as long as there are enough others."""
    chosen: list[int] = []
    alike: list[int] = []
    for index in order.tolist():
        near = (((frames[index].float() - frames[chosen].float()) / 255) ** 2).mean(dim=(1, 2, 3)) < ALIKE
        (alike if near.any() else chosen).append(index)
        if len(chosen) == count:
            break
    return (chosen + alike)[:count]


def _most_eventful(held: Sequences, steps: int) -> tuple[int, int, int]:
    """(row, begin, end) of the segment with the largest sum of rewards and ends."""
    steps = max(1, min(steps, int(held.mask.sum(dim=1).max())))
    earned = ((held.reward + held.done) * held.mask).unfold(1, steps, 1).sum(dim=-1)  # (B, T - steps + 1)
    whole = held.mask.unfold(1, steps, 1).amin(dim=-1) > 0
    best = int(earned.masked_fill(~whole, -torch.inf).argmax())
    row, begin = divmod(best, earned.shape[1])
    return row, begin, begin + steps


@torch.no_grad()
def _expected(memory: MDNRNN, z: Tensor, a: Tensor) -> Prediction:
    """M's predictions along a sequence z (T, Z), a (T, A)."""
    device = memory.gates.weight.device
    not_done = torch.zeros(1, len(z), device=device) if memory.previous_done else None
    prediction, _ = memory(z[None].to(device), a[None].to(device), previous_done=not_done)
    return Prediction._make(None if x is None else x[0].cpu() for x in prediction)


def moments(expected: Prediction) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the mixture, each (..., Z)."""
    pi = expected.logpi.exp()
    mean = (pi * expected.mu).sum(dim=-1)
    between = (expected.mu - mean.unsqueeze(-1)) ** 2
    return mean, (pi * (between + (2 * expected.logsigma).exp())).sum(dim=-1).sqrt()


def _compared(
    label: str, note: str, begin: int, real: Tensor, guess: Tensor, spread: Tensor | None = None
) -> np.ndarray:
    band = None if spread is None else spread.numpy()
    curves = [replace(EXPECTED, values=guess.numpy(), spread=band), replace(REAL, values=real.numpy())]
    return panel(curves[::-1], label, note, first=begin + 1)


def _error(guess: Tensor, real: Tensor) -> str:
    return f"{float(((guess - real) ** 2).mean()):.3f}" if len(real) else "-"


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _write(storage: Storage, folder: str, pictures: dict[str, np.ndarray]) -> list[str]:
    files = {name: png(picture) for name, picture in pictures.items()}
    for name, data in files.items():
        storage.put(f"{folder}/{name}.png", data)
    shown = {name: (data, *pictures[name].shape[1::-1]) for name, data in files.items()}
    storage.put(f"{folder}/events.out.tfevents.0.pictures", picture_file(shown))
    return [f"{folder}/{name}.png" for name in files]
