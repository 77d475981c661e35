"""The table of a sweep over temperatures, with the scores of the paper."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from wm.experiments.sweep import TauResult, trials_of
from wm.report.temperature import comma_separated, data, markdown, paper_of, plot, rows_of


def of(scores: np.ndarray) -> tuple[float, float, int]:
    return float(scores.mean()), float(scores.std(ddof=1)), len(scores)


RNG = np.random.default_rng(1)
DREAM = {(tau, seed): RNG.normal(2000 / (1 + tau), 100, 12) for tau in (0.1, 1.15) for seed in (1, 2)}
REAL = {key: RNG.normal(200 + 700 * key[0], 300, 12) for key in DREAM}
OUTCOMES = [
    TauResult(*key, f"runs/x/{key}", 60, 300 + 100 * key[0] + key[1], of(DREAM[key]), of(REAL[key])) for key in DREAM
]


def test_a_row_pools_the_episodes_of_all_seeds() -> None:
    rows = rows_of(OUTCOMES)
    assert [row.tau for row in rows] == [0.1, 1.15]
    for row in rows:
        for sample, scores in ((row.dream, DREAM), (row.real, REAL)):
            together = np.concatenate([scores[row.tau, 1], scores[row.tau, 2]])
            assert (sample.mean, sample.std) == (pytest.approx(together.mean()), pytest.approx(together.std(ddof=1)))
            assert sample.episodes == 24
            assert sample.seeds == pytest.approx([scores[row.tau, seed].mean() for seed in (1, 2)])
        assert row.gap == pytest.approx(row.dream.mean - row.real.mean)


def test_markdown_includes_the_scores_of_the_paper() -> None:
    lines = markdown(rows_of(OUTCOMES), "doom").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0][-2:] == ["paper: dream", "paper: real"]
    assert cells[2][0] == "0.10"
    assert cells[2][-2:] == ["2086 ± 140", "193 ± 58"]
    assert cells[3][0] == "**1.15**"  # best on validation
    assert cells[3][-2:] == ["918 ± 546", "1092 ± 556"]
    assert cells[3][5] == "2 x 12"
    assert "paper" not in markdown(rows_of(OUTCOMES), "gym:CartPole-v1")


def test_one_seed_has_no_deviation_between_seeds() -> None:
    row = rows_of(OUTCOMES[:1])[0]
    assert row.real.std_of_seeds == 0
    assert "| - | 1 x 12 |" in markdown([row], "doom")


def test_csv_has_one_line_for_each_trial() -> None:
    read = list(csv.DictReader(io.StringIO(comma_separated(OUTCOMES))))
    assert [(float(row["tau"]), int(row["seed"])) for row in read] == [(0.1, 1), (0.1, 2), (1.15, 1), (1.15, 2)]
    assert float(read[0]["real_score"]) == OUTCOMES[0].real[0]
    assert read[0]["run"] == OUTCOMES[0].uri


def test_the_plot_is_a_self_contained_svg() -> None:
    root = ElementTree.fromstring(plot(rows_of(OUTCOMES), "doom"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = " ".join(root.itertext())
    for words in ("in the dream", "in the real game", "paper: real game", "temperature tau"):
        assert words in text
    assert data(rows_of(OUTCOMES), "doom")["rows"][0]["paper"] == paper_of("doom")[0.1]


def test_trials() -> None:
    trials = trials_of([1.0, 0.1, 1.0], 2)
    assert [trial.name for trial in trials] == ["tau-1-seed-1", "tau-0.1-seed-1", "tau-1-seed-2", "tau-0.1-seed-2"]
