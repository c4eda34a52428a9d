"""A study's report from synthetic runs: exact numbers, verdicts, hostile names, missing runs, one page."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from urllib.parse import unquote

import pytest
from made_runs import RIGHT, TEACHER, iou, make_params, make_study, write_run, write_usual

from segkd.config.runs import Run
from segkd.config.study import Published
from segkd.report.build import report
from segkd.report.estimate import Estimate, estimate
from segkd.report.landing import landing
from segkd.report.verdict import judge, verdict


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    params = make_params(root)
    write_usual(root, params)
    report("a-study", params, root, definition=make_study())
    landing(root)
    return root / "reports/a-study"


class TestNumbers:
    def test_metrics_are_exact(self, built: Path) -> None:
        metrics = json.loads((built / "metrics.json").read_text())
        assert metrics["teacher.miou"] == pytest.approx(iou(90), abs=1e-4)
        for method in ("none", "kd"):
            scores = [iou(right) for right in RIGHT[method].values()]
            found = [value for key, value in metrics.items() if key.endswith(f"{method}.miou")]
            assert found == [pytest.approx(mean(scores), abs=1e-4)]
        gains = [iou(RIGHT["kd"][seed]) - iou(RIGHT["none"][seed]) for seed in (0, 1, 2)]
        assert metrics["kd.gain"] == pytest.approx(mean(gains), abs=1e-4)

    def test_table_has_every_row_with_teacher_on_top(self, built: Path) -> None:
        rows = list(csv.DictReader((built / "table.csv").open()))
        assert len(rows) == 3
        assert "teacher" in str(rows[0])
        assert [row["n"] for row in rows] == ["1", "3", "3"]

    def test_interval_of_known_seeds(self) -> None:
        values = [70.0, 71.0, 73.0]
        found = estimate(values)
        assert found is not None
        half = 4.302652729911275 * stdev(values) / 3**0.5  # t(0.975, 2)
        assert (found.low, found.high) == (pytest.approx(mean(values) - half), pytest.approx(mean(values) + half))

    @pytest.mark.fault("P1", "a report that is built twice")
    def test_two_builds_are_equal_to_the_byte(self, built: Path, tmp_path: Path) -> None:
        params = make_params(tmp_path)
        write_usual(tmp_path, params)
        report("a-study", params, tmp_path, definition=make_study())
        for path in sorted(built.rglob("*")):
            if path.is_file():
                assert path.read_bytes() == (tmp_path / "reports/a-study" / path.relative_to(built)).read_bytes(), path


class TestPage:
    def test_is_self_contained(self, built: Path) -> None:
        page = (built / "index.html").read_text()
        outside = [url for url in re.findall(r"https?://[^\s\"'<)]+", page) if "www.w3.org" not in url]
        assert all(url.startswith("http://127.0.0.1:5000") for url in outside)
        for source in re.findall(r"\bsrc=\"([^\"]*)\"", page):
            assert source.startswith("data:")
        assert re.findall(r"<link[^>]*href=\"([^\"]*)\"", page) == ["data:,"]  # no favicon is asked for

    def test_links_lead_somewhere(self, built: Path) -> None:
        page = (built / "index.html").read_text()
        found = [unquote(unescape(link)) for link in re.findall(r"href=\"([^\"#]+)\"", page)]
        links = [link for link in found if not link.startswith(("http", "data:"))]
        assert any(link.endswith("run.json") for link in links)
        assert [link for link in links if not (built / link).exists()] == []

    def test_figures_are_drawings(self, built: Path) -> None:
        figures = sorted((built / "figures").glob("*.svg"))
        assert len(figures) >= 3
        for figure in figures:
            assert ET.parse(figure).getroot().tag.endswith("svg")

    def test_says_what_redoes_a_run(self, built: Path) -> None:
        assert "segkd student tiny/small/kd@large/seed1" in (built / "index.html").read_text()

    def test_rule_of_the_verdicts_stands_on_it(self, tmp_path: Path) -> None:
        params = make_params(tmp_path)
        write_usual(tmp_path, params)
        published = {"miou": 60.0, "split": "test", "source": "nowhere"}
        study = make_study({"method": "none"}, {"method": "kd", "published": published})
        report("a-study", params, tmp_path, definition=study)
        assert "tolerance" in (tmp_path / "reports/a-study/index.html").read_text()


class TestMissingAndHostile:
    @pytest.mark.fault("P3", "a run that is missing from a report")
    def test_a_missing_run_is_counted_and_named(self, tmp_path: Path) -> None:
        params = make_params(tmp_path)
        write_usual(tmp_path, params)
        (tmp_path / Run("tiny", "small", "kd", "large", 2).folder / "evaluation.json").unlink()
        report("a-study", params, tmp_path, definition=make_study())
        rows = list(csv.DictReader((tmp_path / "reports/a-study/table.csv").open()))
        assert [row["n"] for row in rows] == ["1", "3", "2"]
        assert "kd@large/seed2" in (tmp_path / "reports/a-study/index.html").read_text()

    @pytest.mark.fault("P3", "a report before anything ran")
    def test_nothing_run_yet(self, tmp_path: Path) -> None:
        params = make_params(tmp_path)
        report("a-study", params, tmp_path, definition=make_study())
        assert "Nothing has been measured yet" in (tmp_path / "reports/a-study/index.html").read_text()

    def test_a_worse_method_is_shown_as_worse(self, tmp_path: Path) -> None:
        params = make_params(tmp_path)
        write_run(tmp_path, params, TEACHER, 90)
        for seed in (0, 1, 2):
            write_run(tmp_path, params, Run("tiny", "small", "none", None, seed), 70 + seed)
            write_run(tmp_path, params, Run("tiny", "small", "kd", "large", seed), 40 + seed)
        report("a-study", params, tmp_path, definition=make_study())
        assert "worse" in (tmp_path / "reports/a-study/table.md").read_text()

    @pytest.mark.fault("P4", "names that hold HTML, Markdown or formulas")
    def test_names_cannot_inject(self, tmp_path: Path) -> None:
        params = make_params(tmp_path)
        write_usual(tmp_path, params)
        study = make_study(title="<script>alert(1)</script>", about="=cmd()")
        report("a-study", params, tmp_path, definition=study)
        folder = tmp_path / "reports/a-study"
        assert "<script>alert" not in (folder / "index.html").read_text()
        cells: list[Any] = [cell for row in csv.reader((folder / "table.csv").open()) for cell in row]
        assert not [cell for cell in cells if cell[:1] in "=@" and cell]


PUBLISHED = Published(miou=70.0, spread=None, split="val", source="a paper")


@pytest.mark.parametrize(
    ("spread", "low", "high", "word"),
    [
        (None, 69.6, 70.4, "reproduced"),
        (None, 70.6, 71.0, "higher"),
        (None, 68.0, 69.4, "lower"),
        (None, 70.5, 71.5, "reproduced"),  # meets the upper end of [69.5, 70.5]
        (None, 69.0, 71.0, "reproduced"),  # exactly 2 points wide
        (None, 68.9, 71.0, "uncertain"),
        (1.5, 71.4, 72.0, "reproduced"),  # the paper's own spread is wider than half a point
        (0.1, 70.6, 71.0, "higher"),  # and never makes it narrower
    ],
)
def test_verdicts(spread: float | None, low: float, high: float, word: str) -> None:
    assert verdict(70.0, spread, Estimate((low + high) / 2, 0.1, 3, low, high)).word == word


def test_one_seed_is_uncertain_and_other_protocols_are_not_compared() -> None:
    one, three = estimate([70.0]), estimate([69.9, 70.0, 70.1])
    found = judge(PUBLISHED, one, "val", "")
    assert found is not None
    assert found.word == "uncertain"
    for change in ({"comparable": False}, {"confidence": "summary"}, {"split": "test"}):
        other = judge(PUBLISHED.model_copy(update=change), three, "val", "")
        assert other is not None
        assert other.word == "not comparable"
        assert other.reason
    missing = judge(PUBLISHED, None, None, "no GPU")
    assert missing is not None
    assert (missing.word, missing.reason) == ("not run", "no GPU")
    assert judge(None, three, "val", "") is None
