"""The papers' studies against published.csv, the list of every value that was found: none lost, none invented."""

from __future__ import annotations

import csv
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import RELEASED, Run, cell_runs, resolve, study_runs, teacher_of
from segkd.config.study import Cell, Study

PAPERS = ("ka", "dsd", "cirkd", "aicsd", "attnfd")
ALL = (*PAPERS, "camvid")
RUNS = {"ka": 43, "dsd": 73, "cirkd": 151, "aicsd": 128, "attnfd": 102, "camvid": 74}
DISTINCT = 540  # runs of all studies together: what they share is run once
CLASSES = 21
# Tables call the data set VOC, but the teacher in them learned with the masks of SBD (study aicsd, contradictions).
DATASET_OF_TEACHER = {"voc-aug": "voc"}


@functools.cache
def params() -> Params:
    return load_params()


@functools.cache
def study(name: str) -> Study:
    return load_study(name)


@functools.cache
def listed() -> tuple[dict[str, str], ...]:
    with Path(__file__).with_name("published.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def published(name: str) -> Iterator[tuple[str, Cell]]:
    """(table, cell) of every cell with a published value."""
    for table in study(name).tables:
        yield from ((table.name, cell) for cell in table.cells if cell.published)


def names(name: str, cell: Cell) -> tuple[str, str, str | None]:
    """Recipe, student and teacher of a cell, the study's defaults filled in."""
    defaults = study(name).defaults
    recipe, student = cell.recipe or defaults.recipe, cell.student or defaults.student
    assert recipe is not None
    assert student is not None
    return recipe, student, None if cell.method == "none" else cell.teacher or defaults.teacher


def facts(name: str, table: str, cell: Cell) -> tuple[Any, ...]:
    """What published.csv says about a cell, in its order."""
    value = cell.published
    assert value is not None
    recipe, student, teacher = names(name, cell)
    dataset = params().recipes[recipe].dataset
    if (name, table, cell.seeds) in {("aicsd", "voc", (0,)), ("attnfd", "voc", (0,))}:
        dataset = DATASET_OF_TEACHER[dataset]
    method = cell.method if cell.cannot_run else params().methods[cell.method].method
    numbers = (value.miou, value.spread, value.class_accuracy, value.parameters_m, value.flops_g)
    where = (name, table, dataset, value.split, teacher or "", student, method)
    return (*where, *numbers, value.note, value.source, value.confidence)


def wanted(row: dict[str, str]) -> tuple[Any, ...]:
    """The same of a line of the list. A student alone has no teacher, although the list groups it under one."""
    numbers = (
        float(row[key]) if row[key] else None for key in ("miou", "miou_std", "class_acc", "params_m", "flops_g")
    )
    teacher = "" if row["method"] == "none" else row["teacher"]
    where = (row["paper"], row["table"], row["dataset"], row["split"], teacher, row["student"], row["method"])
    return (*where, *numbers, row["notes"], row["source"], row["confidence"])


def test_every_published_value_is_one_cell_and_every_cell_with_a_value_is_published() -> None:
    found = Counter(facts(name, table, cell) for name in ALL for table, cell in published(name))
    listing = Counter(map(wanted, listed()))
    assert len(listing) == 94
    assert found - listing == Counter()
    assert listing - found == Counter()


def test_teachers_are_trained_once_and_students_three_times() -> None:
    teachers = {(row["paper"], row["student"]) for row in listed() if not row["teacher"]}
    for name in PAPERS:
        for _, cell in published(name):
            taught = (name, names(name, cell)[1]) not in teachers
            assert len(cell_runs(study(name), cell)) == (0 if cell.cannot_run else 3 if taught else 1)


def test_only_what_has_no_definition_cannot_be_run() -> None:
    stopped = [cell for name in ALL for table in study(name).tables for cell in table.cells if cell.cannot_run]
    assert [cell.method for cell in stopped] == ["lad", "lad"]
    assert all("defined nowhere" in cell.cannot_run for cell in stopped)


@pytest.mark.parametrize("name", PAPERS)
def test_the_best_checkpoint_is_kept_where_the_best_was_published(name: str) -> None:
    """Protocols, section 3: CIRKD looks every 800 iterations, AICSD's and AttnFD's code after every epoch."""
    for _, cell in published(name):
        assert cell.published is not None
        best = cell.published.selection == "best"
        assert best == (name in {"cirkd", "aicsd", "attnfd"})
        assert best == bool(params().recipes[names(name, cell)[0]].evaluation.select_every)


def test_values_of_the_test_server_stand_beside_the_run_that_is_scored_on_val() -> None:
    by_split: dict[str, set[Run]] = {"val": set(), "test": set()}
    for table, cell in published("cirkd"):
        if table == "cityscapes-main" and cell.published:
            by_split[cell.published.split] |= set(cell_runs(study("cirkd"), cell))
    assert by_split["test"] == by_split["val"]
    assert len(by_split["test"]) == 1 + 8 * 3


def test_aicsd_and_attnfd_share_the_rows_that_both_publish() -> None:
    rows = {
        name: {
            facts(name, table, cell)[1:-2]: cell_runs(study(name), cell)
            for table, cell in published(name)
            if cell.method in {"none", "kd-aicsd"} and names(name, cell)[1] != "deeplabv3plus-mobilenetv2"
        }
        for name in ("aicsd", "attnfd")
    }
    plain = {name: {key[:8]: runs for key, runs in found.items()} for name, found in rows.items()}
    assert plain["aicsd"] == plain["attnfd"]
    assert len(plain["aicsd"]) == 6


@pytest.mark.parametrize("name", ["cirkd", "aicsd", "attnfd"])
def test_published_students_learn_from_the_very_network_that_is_published_as_teacher(name: str) -> None:
    cells = [(cell, cell_runs(study(name), cell)) for _, cell in published(name)]
    alone = {run for cell, runs in cells if cell.method == "none" for run in runs}
    taught = [run for cell, runs in cells if cell.method != "none" for run in runs]
    assert {teacher_of(params(), run) for run in taught} <= alone


@pytest.mark.parametrize("name", ALL)
def test_every_run_resolves_and_their_number_is_known(name: str) -> None:
    runs = study_runs(params(), study(name))
    assert len(runs) == len(set(runs)) == RUNS[name]
    for run in runs:
        assert resolve(params(), run).run == run.name


def test_what_studies_share_is_run_once() -> None:
    assert len({run for name in ALL for run in study_runs(params(), study(name))}) == DISTINCT


@pytest.mark.parametrize("name", ALL)
def test_studies_need_a_gpu_and_say_what_they_are(name: str) -> None:
    found = study(name)
    assert found.needs == "gpu"
    assert len(found.about) > 200
    assert (found.paper is not None) == (name in PAPERS) == bool(found.contradictions)
    assert all(line.endswith(".") for line in found.contradictions)


def test_every_gain_has_its_student_alone_in_the_same_study() -> None:
    for name in ALL:
        runs = study_runs(params(), study(name))
        alone = {(run.recipe, run.network, run.seed) for run in runs if run.method == "none"}
        assert {(run.recipe, run.network, run.seed) for run in runs if run.method not in {"none", RELEASED}} <= alone


def test_authors_own_networks_are_scored_as_they_are() -> None:
    found = {name: [cell for table in study(name).tables for cell in table.cells if cell.checkpoint] for name in PAPERS}
    assert {name: len(cells) for name, cells in found.items() if cells} == {"cirkd": 4, "aicsd": 1, "attnfd": 1}
    for name, cells in found.items():
        for cell in cells:
            assert cell.checkpoint is not None
            assert cell.checkpoint.layout == name
            assert "https://" in cell.checkpoint.where
            assert [run.method for run in cell_runs(study(name), cell)] == [RELEASED]


def test_camvid_runs_every_method_from_random_weights_and_publishes_nothing() -> None:
    from segkd.methods.registry import available

    runs = study_runs(params(), study("camvid"))
    assert not list(published("camvid"))
    assert {params().networks[run.network].pretrained for run in runs} == {None}
    assert {run.recipe for run in runs} == {"cirkd-camvid"}
    assert {params().methods[run.method].method for run in runs} >= set(available())


def test_every_method_fits_the_networks_that_it_is_asked_for() -> None:
    """Strides, maps and teacher's attention, without images: networks on the meta device have no weights."""
    import torch

    from segkd.methods.registry import method_class, method_config
    from segkd.networks.build import build

    runs = {run for name in ALL for run in study_runs(params(), study(name)) if run.teacher}
    asked = {(run.method, run.network, str(run.teacher)) for run in runs}
    with torch.device("meta"):
        networks = {name: params().networks[name] for one in asked for name in one[1:]}
        channels = {name: build(config, CLASSES).channels for name, config in networks.items()}
        for entry, student, teacher in sorted(asked):
            method = params().methods[entry]
            config, cls = method_config(method.method, method.options), method_class(method.method)
            assert cls.teacher_variant(config) in {"none", networks[teacher].attention}
            cls(config, channels[student], channels[teacher], CLASSES)
