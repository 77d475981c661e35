"""What V sees and what M expects: pictures from held-out episodes, and the curves of their trainings."""

import cv2
import numpy as np
from torch import Tensor

from wm.report.charts import Bar, Series, bars, lines
from wm.report.page import Html, columns, facts, figure, image, strip, table, tag
from wm.report.run_view import RunView
from wm.visuals.pictures import TAUS, Strips, Traversed, examples

BEATEN = {  # what the manifests measure M beside
    "held_out_nll": "M",
    "nll_last_latent": "the z before, and how much it changes",
    "nll_gaussian": "one Gaussian for each dimension",
}


def reconstructions(found: RunView) -> Html:
    """Frames above what V makes of them."""
    seen, groups = found.seen, []
    for name, chosen in examples(seen):
        cells = [
            ([tile(seen.frames[i], "a frame"), tile(seen.decoded[i], "as V sees it")], f"{seen.error[i]:.0f}")
            for i in chosen.tolist()
        ]
        groups.append(strip(cells, f"{name}; below each its squared error", "wrap"))
    return figure("Reconstructions.", "the frame, and below it what V makes of it", *groups)


def traversal(found: RunView) -> Html:
    """One number of z changed at a time."""
    seen = found.seen
    shown = Traversed(found.vision, seen)
    rows = []
    for frames, index, nearest in zip(shown.frames, shown.active.tolist(), shown.nearest.tolist(), strict=True):
        cells = [
            (tile(frame, f"z{index} at {value:+g}", mark=at == nearest), f"{value:+g}" if value else "0")
            for at, (frame, value) in enumerate(zip(frames, shown.values.tolist(), strict=True))
        ]
        rows.append(strip(cells, f"z{index}: {shown.activity[index]:.1f} nats"))
    note = (
        "one number of z at a time, from -3 to 3, around a typical frame; the numbers that tell most first (their mean"
        " KL), framed what is nearest to this frame's own value"
    )
    return figure("What single numbers stand for.", note, tag("div", rows, class_="columns"))


def vision_curves(found: RunView) -> Html:
    rows = found.rows("vision")
    section = found.config.vision
    series = [
        Series("training", _curve(rows, "reconstruction"), "other", quiet=True),
        Series("held out", _curve(rows, "held_out_reconstruction"), "one", dots=len(rows) <= 40),
    ]
    kl = [Series("held out", _curve(rows, "held_out_kl"), "one", dots=len(rows) <= 40)]
    note = (
        f"squared error, summed over the frame's {64 * 64 * 3:,} numbers; {section.steps:,} updates of {section.batch}"
    )
    return columns(
        figure("V's reconstruction error.", note, lines(series, "updates", "squared error", low=0)),
        figure("What z tells.", "KL from the prior, held out", lines(kl, "updates", "nats a frame", low=0)),
    )


def filmstrips(found: RunView) -> Html:
    """Reality above dreams at several temperatures, all from one start and with the same actions."""
    memory, vision = found.memory, found.vision
    taus = sorted({*TAUS, found.config.evolve.tau})
    shown = Strips(memory, vision, found.held, taus)
    rows = []
    for label, frames in zip(shown.labels, shown.frames, strict=True):
        cells = [(tile(frame, f"{label}, {head}"), head) for frame, head in zip(frames, shown.heads, strict=True)]
        rows.append(strip(cells, label, "thin"))
    return figure("Dreams at several temperatures.", shown.about, *rows)


def memory_curves(found: RunView) -> Html:
    rows, made, section = found.rows("memory"), found.manifest("memory"), found.config.memory
    series = [
        Series("training", _curve(rows, "nll"), "other", quiet=True),
        Series("held out", _curve(rows, "held_out_nll"), "one", dots=len(rows) <= 40),
    ]
    level = None
    if made is not None and "nll_gaussian" in made.metrics:
        level = (made.metrics["nll_gaussian"], "one Gaussian")
    note = f"negative log-likelihood of the next z; {section.steps:,} updates of {section.batch} sequences"
    return figure("M's loss.", note, lines(series, "updates", "nats a dimension", level=level))


def memory_numbers(found: RunView) -> Html:
    metrics = found.need("memory").metrics
    rows = [
        Bar(says, metrics[name], f"{metrics[name]:.3f}", strong=name == "held_out_nll")
        for name, says in BEATEN.items()
        if name in metrics
    ]
    note = "negative log-likelihood of the next z on held-out episodes, nats a dimension; less is better"
    parts = [bars(rows, "M's negative log-likelihood beside what it has to beat")]
    pairs = []
    if "reward_correlation" in metrics:
        pairs.append(("correlation of expected and real reward", f"{metrics['reward_correlation']:.2f}"))
    if "done_auc" in metrics:
        pairs.append(("AUC of the expected end", f"{metrics['done_auc']:.3f}"))
    return figure("What M has to beat.", note, *parts, facts(pairs) if pairs else None)


def calibration(found: RunView) -> Html | None:
    """How often an episode ended where M said it would, if this M says so at all."""
    bins = found.need("memory").metrics.get("done_reliability")
    if not bins:
        return None
    rows = [
        (f"{row['from']:g} to {row['to']:g}", f"{row['steps']:,}", f"{row['expected']:.3%}", f"{row['happened']:.3%}")
        for row in bins
    ]
    shown = table(("M's probability", "steps", "expected", "came true"), rows, (1, 2, 3))
    return figure("Whether the end comes when M expects it.", "all steps of held-out sequences", shown)


def _curve(rows: list[dict], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def tile(frame: Tensor, about: str, mark: bool = False) -> Html:
    """A frame as stored or on [0, 1], in its own 64x64 pixels; the page enlarges it."""
    pixels = frame.numpy()
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().clip(0, 255).astype(np.uint8)
    good, data = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 85])
    assert good, pixels.shape
    height, width = pixels.shape[:2]
    return image(data.tobytes(), "webp", about, width, height, class_="mark" if mark else None)
