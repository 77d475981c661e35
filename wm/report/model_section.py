"""V's reconstructions and M's predictions on held-out episodes, and the curves of their training."""

from wm.report.charts import Bar, Series, bars, lines
from wm.report.frames import frame_grid
from wm.report.page import Html, columns, facts, figure, table
from wm.report.run_view import RunView
from wm.visuals import pictures

BASELINES = {  # metrics of M and of what it is compared with
    "held_out_nll": "M",
    "nll_last_latent": "the previous z, with the spread of its changes",
    "nll_gaussian": "one Gaussian for each dimension",
}


def reconstructions(view: RunView) -> Html:
    return frame_grid(pictures.reconstructions(view.encoded_frames), "wrap")


def traversal(view: RunView) -> Html:
    return frame_grid(pictures.traversal(view.vision, view.encoded_frames), "columns")


def vision_curves(view: RunView) -> Html:
    rows, section = view.rows("vision"), view.config.vision
    series = [
        Series("training", _curve(rows, "reconstruction"), "other", quiet=True),
        Series("held out", _curve(rows, "held_out_reconstruction"), "one", dots=len(rows) <= 40),
    ]
    kl = [Series("held out", _curve(rows, "held_out_kl"), "one", dots=len(rows) <= 40)]
    error_note = (
        f"Squared error summed over the {64 * 64 * 3:,} values of a frame, over {section.steps:,} updates with batches"
        f" of {section.batch}; lower is better. A held-out curve that rises again shows overfitting."
    )
    kl_note = (
        "KL divergence between z and its prior on held-out frames. It grows with the information in z; near 0, V"
        " ignores the frame."
    )
    return columns(
        figure("V's reconstruction error.", error_note, lines(series, "updates", "squared error", low=0)),
        figure("Information in z.", kl_note, lines(kl, "updates", "nats per frame", low=0)),
    )


def filmstrips(view: RunView) -> Html:
    """A real sequence above dreams at several temperatures, among them the run's."""
    taus = sorted({*pictures.TAUS, view.config.evolve.tau})
    return frame_grid(pictures.filmstrip(view.memory, view.vision, view.held_out_sequences, taus), "thin")


def memory_curves(view: RunView) -> Html:
    rows, manifest, section = view.rows("memory"), view.manifest("memory"), view.config.memory
    series = [
        Series("training", _curve(rows, "nll"), "other", quiet=True),
        Series("held out", _curve(rows, "held_out_nll"), "one", dots=len(rows) <= 40),
    ]
    note = (
        f"Negative log-likelihood of the next z, over {section.steps:,} updates with batches of"
        f" {section.batch} sequences; lower is better."
    )
    level = None
    if manifest is not None and "nll_gaussian" in manifest.metrics:
        level = (manifest.metrics["nll_gaussian"], "one Gaussian")
        note += " The dotted line, if in range, is the baseline of one Gaussian for each dimension."
    return figure("M's loss.", note, lines(series, "updates", "nats per dimension", level=level))


def memory_baselines(view: RunView) -> Html:
    metrics = view.need("memory").metrics
    rows = [
        Bar(label, metrics[name], f"{metrics[name]:.3f}", strong=name == "held_out_nll")
        for name, label in BASELINES.items()
        if name in metrics
    ]
    note = (
        "Negative log-likelihood of the next z on held-out episodes, in nats per dimension; lower is better. M has"
        " learned the dynamics if it is below the baselines."
    )
    chart = bars(rows, "M's negative log-likelihood and the baselines")
    pairs = []
    if "reward_correlation" in metrics:
        pairs.append(
            (
                "correlation of predicted and real reward (1 is perfect, 0 is no better than a constant)",
                f"{metrics['reward_correlation']:.2f}",
            )
        )
    if "done_auc" in metrics:
        pairs.append(
            (
                "AUC of the predicted end of an episode (1 is perfect, 0.5 is a random guess)",
                f"{metrics['done_auc']:.3f}",
            )
        )
    return figure("M against baselines.", note, chart, facts(pairs) if pairs else None)


def calibration(view: RunView) -> Html | None:
    """How often episodes end at each predicted probability; None if M does not predict the end."""
    bins = view.need("memory").metrics.get("done_reliability")
    if not bins:
        return None
    rows = [
        (f"{row['from']:g} to {row['to']:g}", f"{row['steps']:,}", f"{row['expected']:.3%}", f"{row['happened']:.3%}")
        for row in bins
    ]
    note = (
        "Steps of held-out sequences by M's probability that the episode ends. M is calibrated if the mean prediction"
        " equals the observed frequency."
    )
    heads = ("predicted probability", "steps", "mean prediction", "observed")
    return figure("Calibration of the predicted end.", note, table(heads, rows, (1, 2, 3)))


def _curve(rows: list[dict], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]
