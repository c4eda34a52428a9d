"""Every cell of a study is one line with its own verdict, whatever runs it shares and whether anybody can run it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import TEACHER, make_params, make_study, published, right_for, write_missing, write_run, write_usual

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import RELEASED, Run
from segkd.config.study import Study
from segkd.report.build import report
from segkd.report.collect import collect
from segkd.report.missing import log_end
from segkd.report.rows import Row, study_rows, verdicts
from segkd.report.verdict import NO_BEST

CHECKOUT = Path(__file__).resolve().parents[2]
CHECKPOINT = {"layout": "cirkd", "where": "https://example.org/student.pth"}
KD = Run("tiny", "small", "kd", "large")


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return make_params(tmp_path)


def rows_of(study: Study, params: Params, root: Path) -> list[Row]:
    return [row for table in study_rows(collect("s", study, params, root), gains=False) for row in table.rows]


def only(study: Study, params: Params, root: Path) -> Row:
    """The row with a published value."""
    (found,) = [row for row in rows_of(study, params, root) if row.verdict]
    return found


def said(row: Row) -> tuple[str, str]:
    assert row.verdict
    return row.verdict.word, row.verdict.reason


class TestSharedRuns:
    STUDY = make_study(
        {"method": "none", "student": "large", "seeds": [0], "published": published(81.8)},
        {"method": "none", "student": "large", "seeds": [0], "published": published(80.0, split="val")},
        {"method": "none"},
        {"method": "kd", "published": published(53.9)},
        {"method": "kd", "published": published(54.0, split="val", note="test server", comparable=False)},
    )

    def test_each_published_value_is_a_line(self, params: Params, tmp_path: Path) -> None:
        write_usual(tmp_path, params)
        rows = rows_of(self.STUDY, params, tmp_path)
        assert [row.label for row in rows] == ["teacher", "teacher", "student alone", "kd", "kd"]
        words = [row.verdict.word if row.verdict else None for row in rows]
        assert words == ["uncertain", "not comparable", None, "uncertain", "not comparable"]
        assert said(rows[1])[1] == "published on val, scored on test"
        assert said(rows[4])[1] == "test server"

    def test_runs_and_figures_show_them_once(self, params: Params, tmp_path: Path) -> None:
        write_usual(tmp_path, params)
        folder = report("s", params, tmp_path, definition=self.STUDY)
        page = (folder / "index.html").read_text()
        assert page.count('<details id="runs-kd"') == page.count('<details id="runs-teacher"') == 1
        assert page.count('<th scope="col">kd</th>') == 1  # IoU per class
        lines = list(csv.DictReader((folder / "table.csv").open()))
        assert [(line["key"], line["published_split"]) for line in lines[3:]] == [("kd", "test"), ("kd", "val")]
        metrics = json.loads((folder / "metrics.json").read_text())
        assert (metrics["verdicts.uncertain"], metrics["verdicts.not comparable"]) == (2, 2)

    def test_a_teacher_without_cell_here_leaves_its_value_to_the_table_that_has_it(
        self, params: Params, tmp_path: Path
    ) -> None:
        cell = {"method": "none", "student": "large", "published": published(81.8)}
        tables = [
            {"name": "one", "title": "One", "cells": [cell]},
            {"name": "two", "title": "Two", "cells": [{"method": "kd", "published": published(50)}]},
        ]
        one, two = study_rows(collect("s", make_study(tables=tables), params, tmp_path), gains=False)
        assert [row.verdict is None for row in one.rows] == [False]
        assert [(row.label, row.verdict is None) for row in two.rows] == [("teacher", True), ("kd", False)]
        assert len(two.rows[0].entry.evidence) == 3  # all seeds that the study trains of it


CELLS: list[dict[str, Any]] = [
    {"method": "none"},
    {"method": "none", "seeds": [0]},
    {"method": "none", "seeds": []},
    {"method": "none", "student": "large", "seeds": [0]},
    {"method": "kd"},
    {"method": "kd", "student": "large", "teacher": "large"},
    {"method": "nowhere", "cannot_run": "nobody defines it"},
    {"method": "none", "checkpoint": CHECKPOINT},
]
VALUES = [None, published(50.0), published(51.0, split="val"), published(52.0, selection="best")]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    root = tmp_path_factory.mktemp("empty")
    return root, make_params(root)


ROWS = st.tuples(st.sampled_from(CELLS), st.sampled_from(VALUES))


@settings(deadline=None)
@given(st.lists(st.lists(ROWS, min_size=1, max_size=8), min_size=1, max_size=4))
def test_no_cell_is_lost_and_none_invented(empty: tuple[Path, Params], drawn: list[Any]) -> None:
    root, params = empty
    filled = [[cell | ({"published": value} if value else {}) for cell, value in cells] for cells in drawn]
    tables = [{"name": f"t{place}", "title": "T", "cells": cells} for place, cells in enumerate(filled)]
    study = make_study(tables=tables)
    rows = rows_of(study, params, root)
    cells = [id(cell) for table in study.tables for cell in table.cells]
    assert sorted(cells) == sorted(id(row.entry.cell) for row in rows if id(row.entry.cell) in cells)
    assert sum(row.verdict is not None for row in rows) == sum(value is not None for line in drawn for _, value in line)
    assert {row.verdict.word for row in rows if row.verdict} <= {"not run"}


def studies() -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "workflow/studies").glob("*.yaml"))


@pytest.mark.parametrize("name", studies())
def test_every_published_value_of_the_project_has_one_verdict(name: str, tmp_path: Path) -> None:
    study = load_study(name, CHECKOUT / "workflow/studies")
    tables = study_rows(collect(name, study, load_params(CHECKOUT / "params.yaml"), tmp_path), gains=False)
    values = [cell.published for table in study.tables for cell in table.cells if cell.published]
    assert verdicts(tables).total() == len(values)
    shown = [row.entry.published for table in tables for row in table.rows if row.entry.published]
    assert sorted(map(id, shown)) == sorted(map(id, values))


class TestNotRun:
    STUDY = make_study({"method": "none"}, {"method": "kd", "published": published(60.0)})

    def test_a_row_that_nobody_can_run(self, params: Params, tmp_path: Path) -> None:
        cell = {"method": "lad", "cannot_run": "LAD is nowhere defined", "published": published(71.4)}
        study = make_study({"method": "none"}, cell)
        assert said(only(study, params, tmp_path)) == ("not run", "LAD is nowhere defined")
        page = (report("s", params, tmp_path, definition=study) / "index.html").read_text()
        assert "LAD is nowhere defined" in page

    def test_nothing_made_yet(self, params: Params, tmp_path: Path) -> None:
        assert said(only(self.STUDY, params, tmp_path)) == ("not run", "not made yet")

    def test_what_the_machine_lacks_comes_first(self, params: Params, tmp_path: Path) -> None:
        folder = tmp_path / KD.folder
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text("DataError: no images\n")
        write_missing(tmp_path, {f"tiny/small/kd@large/seed{seed}": "Cityscapes: no account" for seed in (0, 1)})
        assert said(only(self.STUDY, params, tmp_path)) == (
            "not run",
            "seeds 0, 1: Cityscapes: no account; seed 2: not made yet",
        )

    @pytest.mark.fault("P3", "seeds that failed or are missing")
    def test_one_of_three_seeds_counts_and_the_others_say_why(self, params: Params, tmp_path: Path) -> None:
        write_run(tmp_path, params, Run("tiny", "small", "kd", "large", 1), right_for(60.25))
        folder = tmp_path / KD.folder
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text("10:00:00 starts\nNonFiniteError: The loss is not finite.\n  found: nan\n")
        row = only(self.STUDY, params, tmp_path)
        assert said(row) == ("uncertain", "n = 1 gives no interval (+0.25 points)")
        assert row.compared
        assert row.compared.n == 1
        failed = "seed 0: failed: NonFiniteError: The loss is not finite. found: nan"
        assert row.entry.missing == f"{failed}; seed 2: not made yet"
        report("s", params, tmp_path, definition=self.STUDY)
        assert "NonFiniteError: The loss" in (tmp_path / "reports/s/index.html").read_text()

    @pytest.mark.fault("P3", "runs that are trained but not scored")
    def test_trained_but_not_scored(self, params: Params, tmp_path: Path) -> None:
        for seed in (0, 1, 2):
            folder = write_run(tmp_path, params, Run("tiny", "small", "kd", "large", seed), 60)
            (folder / "evaluation.json").unlink()
            (folder / "evaluation.txt").write_text("Traceback\nMemoryError\n")
        word, reason = said(only(self.STUDY, params, tmp_path))
        assert (word, reason) == ("not run", "trained, not evaluated (failed: MemoryError)")
        page = (report("s", params, tmp_path, definition=self.STUDY) / "index.html").read_text()
        assert ">no score</a>" in page

    @pytest.mark.fault("P3", "a damaged list of what the machine lacks")
    def test_a_damaged_list_of_what_lacks_stops_nothing(self, params: Params, tmp_path: Path) -> None:
        write_missing(tmp_path, {})
        (tmp_path / "data/receipts/missing.json").write_text('{"format": 2}')
        assert said(only(self.STUDY, params, tmp_path)) == ("not run", "not made yet")

    @pytest.mark.parametrize(
        ("text", "end"),
        [
            ("", "not finished"),
            ("10:00:00 step 1\n10:00:01 step 2\n\n", "not finished; its log ends with “10:00:01 step 2”"),
            ("ValueError: first\nretried\nsegkd.errors.DataError: second\n", "failed: segkd.errors.DataError: second"),
            ("KeyboardInterrupt\n", "failed: KeyboardInterrupt"),
            ("OSError: " + "x" * 500, "failed: OSError: " + "x" * 230 + "…"),
            ("the ErrorRate: 3\n", "not finished; its log ends with “the ErrorRate: 3”"),
        ],
    )
    def test_end_of_a_log(self, tmp_path: Path, text: str, end: str) -> None:
        (tmp_path / "log.txt").write_text(text)
        assert log_end(tmp_path / "log.txt") == end

    def test_no_log(self, tmp_path: Path) -> None:
        assert log_end(tmp_path / "log.txt") == ""


class TestAsReleased:
    STUDY = make_study({"method": "none"}, {"method": "none", "checkpoint": CHECKPOINT, "published": published(60.0)})

    def test_not_imported(self, params: Params, tmp_path: Path) -> None:
        row = only(self.STUDY, params, tmp_path)
        assert row.label == "as released, rescored"
        command = "segkd import-checkpoint FILE --from cirkd"
        word, reason = said(row)
        assert word == "not run"
        assert command in reason
        assert CHECKPOINT["where"] in reason
        page = (report("s", params, tmp_path, definition=self.STUDY) / "index.html").read_text()
        assert f"<code>{command}" in page
        write_missing(tmp_path, {row.entry.run.name: "github.com does not answer"})
        assert said(only(self.STUDY, params, tmp_path))[1] == f"github.com does not answer; {reason}"

    def test_rescored(self, params: Params, tmp_path: Path) -> None:
        write_run(tmp_path, params, Run("tiny", "small", RELEASED), right_for(60.1))
        row = only(self.STUDY, params, tmp_path)
        assert said(row) == ("uncertain", "n = 1 gives no interval (+0.10 points)")
        assert row.entry.published
        assert not row.is_baseline

    def test_what_was_published_of_it_stands_beside_its_score(self, params: Params, tmp_path: Path) -> None:
        write_run(tmp_path, params, Run("tiny", "small", RELEASED), 60)
        values = (published(60.0), published(58.5, split="val"))
        cells = [{"method": "none", "published": value} for value in values]
        study = make_study(*cells, {"method": "none", "checkpoint": CHECKPOINT}, {"method": "kd"})
        rows = rows_of(study, params, tmp_path)
        assert [row.published_as for row in rows] == ["", "", "", "60.00 on test, 58.50 on val", ""]
        page = (report("s", params, tmp_path, definition=study) / "index.html").read_text()
        assert "published 60.00 on test, 58.50 on val" in page

    def test_differences_from_the_released_network_are_said(self, params: Params, tmp_path: Path) -> None:
        record = {"step": "import", "import": {"differences": ["its mean is another"]}}
        write_run(tmp_path, params, Run("tiny", "small", RELEASED), 60, record=record)
        row = only(self.STUDY, params, tmp_path)
        assert row.flags == ("tiny/small/as-released/seed0: not quite the released network: its mean is another",)
        assert row.seconds is None  # nothing was trained here

    def test_it_is_no_student_alone(self, params: Params, tmp_path: Path) -> None:
        write_run(tmp_path, params, Run("tiny", "small", RELEASED), 60)
        write_run(tmp_path, params, KD, 70)
        released = {"method": "none", "checkpoint": CHECKPOINT, "published": published(60.0)}
        study = make_study(released, {"method": "kd", "seeds": [0], "published": published(66.0)})
        (table,) = study_rows(collect("s", study, params, tmp_path))
        assert [row.no_gain for row in table.rows[1:]] == ["", "no student without teacher in this study"]
        assert not table.gains_judged


class TestSelection:
    def test_best_is_compared_with_best(self, params: Params, tmp_path: Path) -> None:
        write_usual(tmp_path, params)  # the best checkpoint is one point above the last
        (tmp_path / Run("tiny", "small", "kd", "large", 2).folder / "evaluation.json").unlink()
        values = {way: only(make_study({"method": "kd", "published": published(99.0, selection=way)}), params, tmp_path)
                  for way in ("last", "best")}  # fmt: skip
        means = {way: row.compared.mean for way, row in values.items() if row.compared}
        assert means["best"] == pytest.approx(means["last"] + 1)

    def test_the_last_one_does_not_stand_in_for_the_best(self, params: Params, tmp_path: Path) -> None:
        for seed in (0, 1, 2):
            write_run(tmp_path, params, Run("tiny", "small", "kd", "large", seed), 60, best=None)
        row = only(make_study({"method": "kd", "published": published(42.9, selection="best")}), params, tmp_path)
        assert said(row) == ("not comparable", NO_BEST)


def test_published_extras_and_sources_are_shown(params: Params, tmp_path: Path) -> None:
    write_run(tmp_path, params, TEACHER, 90)
    extras = {"class_accuracy": 84.05, "parameters_m": 59.3, "flops_g": 12.5, "note": "a slip"}
    study = make_study(
        {"method": "none", "student": "large", "seeds": [0], "published": published(80.0, **extras)},
        {"method": "none", "published": published(70.0, confidence="summary")},
    )
    page = (report("s", params, tmp_path, definition=study) / "index.html").read_text()
    sources = ("</sup> a paper: a slip", "</sup> a paper (summary)")
    for words in ("published 84.05", "published 59.3 M, 12.5 GFLOPs", *sources):
        assert words in page
