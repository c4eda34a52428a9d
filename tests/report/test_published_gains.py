"""Is a published gain reproduced? Words at their borders, pairs by seed, and p corrected within a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_params, make_study, published, right_for, write_run

from segkd.config.params import Params
from segkd.config.runs import Run
from segkd.report.build import report
from segkd.report.collect import collect
from segkd.report.estimate import Estimate
from segkd.report.published_gains import PublishedGain, one_sided_p
from segkd.report.rows import study_rows
from segkd.report.verdict import GAIN_WORDS, NO_BEST, gain_verdict

ALONE = {"method": "none", "published": published(60.0)}


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return make_params(tmp_path)


def write_seeds(root: Path, params: Params, method: str, *percent: float, **changes: Any) -> None:
    """Scores, percent mIoU, of seeds 0, 1, ..."""
    for seed, value in enumerate(percent):
        run = Run("tiny", "small", method, None if method == "none" else "large", seed)
        write_run(root, params, run, right_for(value), **changes)


def gains(params: Params, root: Path, *cells: dict[str, Any], **changes: Any) -> dict[str, PublishedGain | None]:
    """Published gain by row's label."""
    tables = study_rows(collect("s", make_study(*cells, **changes), params, root), gains=False)
    return {row.label: row.published_gain for table in tables for row in table.rows}


def kd(value: float = 61.5, **changes: Any) -> dict[str, Any]:
    return {"method": "kd", "published": published(value, **changes)}


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.5, 1.4, "gain smaller"),
        (0.5, 1.5, "gain reproduced"),  # the border belongs to the interval
        (1.5, 2.5, "gain reproduced"),
        (1.6, 2.5, "gain larger"),
        (0.5, 2.5, "gain reproduced"),  # exactly 2 points wide
        (0.5, 2.6, "uncertain"),
        (-3.0, 1.0, "gain smaller"),  # wide, but clear
        (None, None, "uncertain"),
    ],
)
def test_words(low: float | None, high: float | None, word: str) -> None:
    found = gain_verdict(1.5, Estimate(1.2, 1, None, low, high))
    assert found.word == word
    assert found.word in GAIN_WORDS


def test_an_interval_that_covers_zero_as_well_says_so() -> None:
    assert gain_verdict(0.5, Estimate(0.4, 3, 0.2, -0.1, 0.9)).reason == "the interval covers +0.50, and zero as well"
    assert "zero" not in gain_verdict(0.5, Estimate(0.4, 3, 0.2, 0.1, 0.7)).reason


class TestPairs:
    def test_seeds_are_paired(self, params: Params, tmp_path: Path) -> None:
        write_seeds(tmp_path, params, "none", 50.0, 60.0, 70.0)
        write_seeds(tmp_path, params, "kd", 51.4, 61.5, 71.6)  # seeds differ by far more than the method adds
        found = gains(params, tmp_path, ALONE, kd())["kd"]
        assert found
        assert (found.verdict.word, round(found.points, 6)) == ("gain reproduced", 1.5)
        assert found.reproduced
        assert found.reproduced.mean == pytest.approx(1.5)
        assert found.reproduced.high == pytest.approx(1.5 + 4.302652729911275 * 0.1 / 3**0.5)

    @pytest.mark.parametrize(
        ("scores", "word"),
        [((52.5, 62.6, 72.7), "gain larger"), ((49.9, 60.0, 70.1), "gain smaller"), ((50.0, 63.0, 70.0), "uncertain")],
    )
    def test_other_words(self, params: Params, tmp_path: Path, scores: tuple[float, ...], word: str) -> None:
        write_seeds(tmp_path, params, "none", 50.0, 60.0, 70.0)
        write_seeds(tmp_path, params, "kd", *scores)
        found = gains(params, tmp_path, ALONE, kd())["kd"]
        assert found
        assert found.verdict.word == word

    def test_only_shared_seeds_count(self, params: Params, tmp_path: Path) -> None:
        write_seeds(tmp_path, params, "none", 50.0)
        write_seeds(tmp_path, params, "kd", 51.5, 90.0, 90.0)
        found = gains(params, tmp_path, ALONE, kd())["kd"]
        assert found
        assert (found.verdict.word, found.verdict.reason) == ("uncertain", "n = 1 gives no interval (0.00 points)")
        assert found.p is None

    def test_not_run(self, params: Params, tmp_path: Path) -> None:
        found = gains(params, tmp_path, ALONE, kd())["kd"]
        assert found
        assert (found.verdict.word, found.verdict.reason) == ("not run", "not made yet")
        write_seeds(tmp_path, params, "kd", 51.5)
        found = gains(params, tmp_path, ALONE, kd())["kd"]
        assert found
        assert (found.verdict.word, found.verdict.reason) == ("not run", "student alone: not made yet")

    def test_a_method_that_nobody_can_run_has_a_gain_that_is_not_run(self, params: Params, tmp_path: Path) -> None:
        cell = {"method": "lad", "cannot_run": "nowhere defined", "published": published(64.0)}
        found = gains(params, tmp_path, ALONE, cell)["lad"]
        assert found
        assert (found.points, found.verdict.word, found.verdict.reason) == (4.0, "not run", "nowhere defined")

    def test_not_comparable(self, params: Params, tmp_path: Path) -> None:
        write_seeds(tmp_path, params, "none", 50.0, 60.0, 70.0)
        write_seeds(tmp_path, params, "kd", 51.4, 61.5, 71.6)
        other = {"method": "none", "published": published(60.0, comparable=False, note="no ImageNet weights")}
        reasons = {
            "a server": (ALONE, kd(comparable=False, note="a server")),
            "student alone: no ImageNet weights": (other, kd()),
            "published for the best checkpoint, the student alone for the last one": (ALONE, kd(selection="best")),
        }
        for reason, cells in reasons.items():
            found = gains(params, tmp_path, *cells)["kd"]
            assert found
            assert (found.verdict.word, found.verdict.reason) == ("not comparable", reason)

    def test_best_against_best(self, params: Params, tmp_path: Path) -> None:
        write_seeds(tmp_path, params, "none", 50.0, 60.0, 70.0)
        write_seeds(tmp_path, params, "kd", 51.4, 61.5, 71.6, best={"iteration": 3, "scores": {"miou": 0.9}})
        best = {"method": "none", "published": published(60.0, selection="best")}
        found = gains(params, tmp_path, best, kd(selection="best"))["kd"]
        assert found
        assert found.reproduced
        assert found.reproduced.mean == pytest.approx(90 - 61)
        write_seeds(tmp_path, params, "kd", 51.4, 61.5, 71.6, best=None)
        found = gains(params, tmp_path, best, kd(selection="best"))["kd"]
        assert found
        assert (found.verdict.word, found.verdict.reason) == ("not comparable", NO_BEST)


class TestPublishedPairs:
    def test_split_decides_which_student_alone(self, params: Params, tmp_path: Path) -> None:
        cells = (
            {"method": "none", "published": published(60.0)},
            {"method": "none", "published": published(50.0, split="val")},
            kd(61.5),
            {"method": "ka", "published": published(53.0, split="val")},
        )
        found = gains(params, tmp_path, *cells)
        points = {label: one.points for label, one in found.items() if one}
        assert points == {"kd": 1.5, "ka": 3.0}

    def test_no_published_student_alone_no_gain(self, params: Params, tmp_path: Path) -> None:
        assert gains(params, tmp_path, {"method": "none"}, kd())["kd"] is None

    def test_another_table_of_the_study_stands_in_and_is_named(self, params: Params, tmp_path: Path) -> None:
        tables = [
            {"name": "main", "title": "Main", "cells": [ALONE]},
            {"name": "methods", "title": "Methods", "cells": [kd()]},
        ]
        found = gains(params, tmp_path, tables=tables)["kd"]
        assert found
        assert (found.points, found.table) == (1.5, "Main")


class TestSignificance:
    def test_p_of_known_differences(self) -> None:
        # two degrees of freedom: 1/2 - t / (2 sqrt(2 + t^2)), t = 2 / (1 / sqrt(3))
        assert one_sided_p([1.0, 2.0, 3.0]) == pytest.approx(0.5 - 12**0.5 / (2 * 14**0.5))
        assert one_sided_p([1.0, 3.0]) == pytest.approx(0.5 - 0.35241638234956674)  # arctan(2) / pi
        assert one_sided_p([-1.0, -2.0, -3.0]) == pytest.approx(0.5 + 12**0.5 / (2 * 14**0.5))

    def test_without_spread_or_pairs(self) -> None:
        assert (one_sided_p([0.5, 0.5]), one_sided_p([0.0, 0.0]), one_sided_p([-0.5, -0.5])) == (0.0, 1.0, 1.0)
        assert one_sided_p([0.5]) is one_sided_p([]) is None

    def test_holm_counts_each_test_once(self, params: Params, tmp_path: Path) -> None:
        write_seeds(tmp_path, params, "none", 50.0, 60.0, 70.0)
        write_seeds(tmp_path, params, "kd", 51.0, 62.0, 73.0)
        write_seeds(tmp_path, params, "ka", 50.5, 61.5, 70.5)
        again = kd(60.5, note="printed twice")
        cells = (ALONE, kd(), again, {"method": "ka", "published": published(61.0)})
        kd_p, ka_p = one_sided_p([1.0, 2.0, 3.0]), one_sided_p([0.5, 1.5, 0.5])
        assert kd_p
        assert ka_p
        assert kd_p < ka_p
        report("s", params, tmp_path, definition=make_study(*cells))
        lines = list(csv.DictReader((tmp_path / "reports/s/table.csv").open()))
        found = {line["key"]: float(line["gain_p_holm"]) for line in lines if line["gain_p_holm"]}
        assert found == {"kd": pytest.approx(2 * kd_p, abs=1e-5), "ka": pytest.approx(max(2 * kd_p, ka_p), abs=1e-5)}
        page = (tmp_path / "reports/s/index.html").read_text()
        for words in ("One-sided paired t-test", "J covers g", "p for “gain &gt; 0” (Holm)"):
            assert words in page
