"""Runs by name, what they depend on, and the hash of everything that decides them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import TINY

from segkd.config.params import Params
from segkd.config.runs import Run, cell_runs, resolve, study_runs, teacher_of
from segkd.config.study import Study
from segkd.errors import ConfigError

NAMES = st.from_regex(r"[a-z0-9][a-z0-9.+-]{0,8}", fullmatch=True)


@pytest.mark.fault("P1", "any run's name (hypothesis)")
@given(NAMES, NAMES, NAMES, st.none() | NAMES, st.none() | st.integers(0, 99))
def test_name_and_parse_are_inverse(
    recipe: str, network: str, method: str, teacher: str | None, seed: int | None
) -> None:
    run = Run(recipe, network, method, teacher, seed)
    assert Run.parse(run.name) == run
    assert Run.parse(run.folder) == run


@pytest.mark.fault("P3", "names that name no run")
@pytest.mark.parametrize("text", ["", "a/b", "a/b/c/seed", "a/b/c/seedx", "a/b@c/d/seed1"])
def test_nonsense_is_no_run(text: str) -> None:
    with pytest.raises(ConfigError, match="does not name a run"):
        Run.parse(text)


def params(**changes: Any) -> Params:
    return Params.model_validate(copy.deepcopy(TINY) | changes)


STUDY = {
    "title": "t",
    "defaults": {"recipe": "tiny", "teacher": "large", "student": "small", "seeds": [0, 1]},
    "tables": [{"name": "a", "title": "A", "cells": [{"method": "none"}, {"method": "kd", "seeds": [3]}]}],
}


def test_a_study_needs_its_cells_and_their_teachers_once() -> None:
    names = [run.name for run in study_runs(params(), Study.model_validate(STUDY))]
    assert names == [
        "tiny/large/none/seed0",
        "tiny/small/none/seed0",
        "tiny/small/none/seed1",
        "tiny/small/kd@large/seed3",
    ]


def test_a_cell_without_recipe_is_refused() -> None:
    study = Study.model_validate(STUDY | {"defaults": {}})
    with pytest.raises(ConfigError, match="names no recipe or student"):
        cell_runs(study, study.tables[0].cells[0])


def test_teachers_may_have_a_recipe_of_their_own() -> None:
    recipes = {"tiny": TINY["recipes"]["tiny"] | {"teacher_recipe": "long"}, "long": TINY["recipes"]["tiny"]}
    assert teacher_of(params(recipes=recipes), Run("tiny", "small", "kd", "large", 0)) == Run("long", "large")


@pytest.mark.fault("P1", "a change that decides no result, or one that does")
def test_hash_follows_what_decides_the_result_and_nothing_else() -> None:
    run = Run("tiny", "small", "kd", "large", 0)
    before = resolve(params(), run).sha256()
    other_method = params(methods=TINY["methods"] | {"ka": {"method": "ka", "adapt_weight": 2}})
    assert resolve(other_method, run).sha256() == before
    assert resolve(params(methods=TINY["methods"] | {"kd": {"method": "kd", "temperature": 2}}), run).sha256() != before
    assert resolve(params(), Run("tiny", "small", "kd", "large", 1)).sha256() != before
    assert resolve(params(tracking={"uri": "http://elsewhere"}), run).sha256() == before


@pytest.mark.parametrize("run", [Run("tiny", "small", "none", "large"), Run("tiny", "small", "kd", None)])
def test_none_and_teacher_exclude_each_other(run: Run) -> None:
    with pytest.raises(ConfigError, match="teacher"):
        resolve(params(), run)


@pytest.mark.parametrize(
    ("run", "kind"),
    [(Run("x", "small"), "recipe"), (Run("tiny", "x"), "network"), (Run("tiny", "small", "x", "large"), "method")],
)
def test_missing_names_say_what_there_is(run: Run, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"There is no {kind} 'x'"):
        resolve(params(), run)
