"""The page of a search: the best configuration, which fields mattered, all trials and their curves."""

import math

from wm.experiments.spaces import Space
from wm.report.charts import Bar, Series, bars, lines
from wm.report.page import Html, columns, commands, facts, figure, missing, page, section, table, tag
from wm.report.tune_table import Results, Row, rows_with, shown, validation_of

BARS = 12  # configurations in the ranking
CURVES = 24  # that are drawn; more are unreadable


def tune_page(results: Results) -> str:
    fields = ", ".join(results.fields)
    done = len(rows_with(results, ["complete"]))
    lead = f"{len(results.rows)} configurations of {results.preset} ({results.config.game}), {done} complete."
    return page(
        f"Search over {fields} · World Models",
        tag("h1", f"Search over {fields}"),
        tag("p", lead, class_="sub"),
        section("Best configuration", _verdict(results), _best(results)),
        section(
            "Which fields mattered",
            "Share of the variance between configurations that each field explains alone, adjusted for chance.",
            columns(_importance(results), *(_effect(results, space) for space in results.spaces)),
        ),
        section("All trials", "Validations are the best of an evolution; the default is marked.", _table(results)),
        section("Validations", None, columns(_curves(results), _ranking(results))),
    )


def _verdict(results: Results) -> str | None:
    """Whether the default stands."""
    best, default = results.best, _default(results)
    if best is None:
        return None
    if default is None:
        return "The base's own values are not among the complete configurations."
    if default is best:
        return "The base's own values are the best of this search."
    gap = best.mean - default.mean
    error = math.hypot(best.error, default.error)
    if results.ties(default):
        return f"The base's own values stand: the best is {gap:.4g} ± {error:.2g} above them, within the error."
    return f"The best is {gap:.4g} ± {error:.2g} above the base's own values."


def _default(results: Results) -> Row | None:
    rows = [row for row in results.rows if dict(row.values) == dict(results.default) and row.state == "complete"]
    return rows[0] if rows else None


def _best(results: Results) -> Html:
    best = results.best
    if best is None:
        return missing("no configuration is complete yet: run the same command again")
    pairs = [(field, shown(best.values[field])) for field in results.fields]
    pairs.append(("validation", validation_of(best)))
    if results.score:
        score = results.score
        pairs.append((f"score, {score['episodes']} test episodes", f"{score['score']:.4g} ± {score['se']:.2g}"))
    return tag("div", facts(pairs), commands([results.command()]))


def _importance(results: Results) -> Html:
    if not results.important:
        return missing("too few complete configurations, or no differences between them")
    rows = [
        Bar(one.field, one.share, f"{one.share:.0%}, p = {one.p:.2g}", strong=one.matters) for one in results.important
    ]
    note = "p: the share of random orders of the results that explain as much. Blue: 0.05 or less."
    return figure("Importance.", note, bars(rows, "importance of the fields"))


def _effect(results: Results, space: Space) -> Html:
    """The validations over the values of one field."""
    rows = rows_with(results, ["complete"])
    name = tag("code", space.field)
    if not rows:
        return figure(name, None, missing("no complete configurations"))
    if space.numeric:
        points = sorted((float(row.values[space.field]), row.mean, row.error) for row in rows)
        series = Series(
            "validation", [(x, y) for x, y, _ in points], errors=[e for *_, e in points], line=False, dots=True
        )
        log = space.log and all(x > 0 for x, *_ in points)
        return figure(name, None, lines([series], space.field, "validation", log_x=log))
    shares = []
    for value in space.choices:
        means = [row.mean for row in rows if row.values[space.field] == value]
        if means:
            mean, spread = sum(means) / len(means), (max(means) - min(means)) / 2
            shares.append(Bar(shown(value), mean, f"{mean:.4g} ({len(means)})", spread=spread))
    note = "Mean validation and number of configurations; the whisker is half of their range."
    return figure(name, note, bars(shares, f"validation by {space.field}"))


def _table(results: Results) -> Html:
    default, rows = _default(results), []
    for row in results.rows:
        state = "ties with the best" if results.ties(row) else row.state
        name = f"{row.number:04d}{' (default)' if row is default else ''}"
        reason = tag("small", f" {row.reason}") if row.reason else ""
        cells = [shown(row.values[field]) for field in results.fields]
        rows.append((name, [state, reason], *cells, validation_of(row), f"{row.generations:,}"))
    heads = ("trial", "state", *results.fields, "validation", "generations")
    return table(heads, rows, range(2, len(heads)), strong=0 if results.best else -1)


def _ranking(results: Results) -> Html | None:
    rows = rows_with(results, ["complete"])[:BARS]
    if not rows:
        return None
    shown_rows = [
        Bar(
            ", ".join(shown(row.values[field]) for field in results.fields),
            row.mean,
            validation_of(row),
            error=row.error,
            strong=row is results.best or results.ties(row),
        )
        for row in rows
    ]
    note = "Best validations with standard errors. Blue: the best and those within the error of it."
    return figure("The best configurations.", note, bars(shown_rows, "validations of the best configurations"))


def _curves(results: Results) -> Html:
    series = []
    drawn = [row for row in results.rows if row.curve][:CURVES]
    for row in reversed(drawn):
        best = row is results.best
        points = [(float(one.generation), one.score) for one in row.curve]
        errors = [one.error for one in row.curve] if best else None
        name = f"{row.number:04d}{', the best' if best else ''}"
        series.append(Series(name, points, "one" if best else "other", errors=errors, dots=best, quiet=not best))
    if not series:
        return missing("no validations yet")
    note = "Score of the mean on the validation episodes, first seed; short curves were stopped or are unfinished."
    return figure("Validation of each configuration.", note, lines(series, "generation", "validation"))
