"""Which studies are built, and which change of params.yaml reaches which step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_project import TINY

from segkd import plan
from segkd.config.params import Params
from segkd.config.runs import Run
from segkd.errors import ConfigError

KD = Run("tiny", "small", "kd", "large")
STUDY = """title: S
defaults: {recipe: tiny, teacher: large, student: small}
tables: [{name: t, title: T, cells: [%s]}]
"""


def params(change: Callable[[dict[str, Any]], object] = lambda values: None) -> Params:
    values = copy.deepcopy(TINY)
    change(values)
    return Params.model_validate(values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, cells in (("quickstart", "{method: none}, {method: kd}"), ("paper", "{method: none, student: large}")):
        (tmp_path / f"{name}.yaml").write_text(STUDY % cells)
    return tmp_path


def test_auto_is_the_embedded_study_without_a_gpu_and_all_with_one(folder: Path) -> None:
    assert plan.choose(params(), gpu=False, folder=folder).names == ("quickstart",)
    assert plan.choose(params(), gpu=True, folder=folder).names == ("paper", "quickstart")


def test_a_list_overrides_auto_and_the_command_line_both(folder: Path) -> None:
    listed = params(lambda values: values.update(studies=["paper"]))
    assert plan.choose(listed, gpu=True, folder=folder).names == ("paper",)
    asked = plan.choose(listed, gpu=False, asked=["--cores", "quickstart"], folder=folder)
    assert str(asked) == "building quickstart (named on the command line)"


def test_a_run_keeps_its_rule_whatever_is_built(folder: Path) -> None:
    assert plan.teacher_names(params(), folder) == {"tiny/large/none/seed0"}
    (folder / "broken.yaml").write_text("title: [")
    assert plan.teacher_names(params(), folder) == {"tiny/large/none/seed0"}


def test_only_methods_that_declare_it_have_pretraining() -> None:
    assert plan.pretraining_of(params(), KD) is None
    assert plan.pretraining_of(params(), Run("tiny", "small")) is None
    ka = plan.pretraining_of(params(), Run("tiny", "small", "ka", "large", 2))
    assert ka == Run("tiny", "small", "ka", "large", None)


@pytest.mark.parametrize(
    ("change", "training", "evaluation"),
    [
        (lambda v: v["methods"].update(kd={"method": "kd", "weight": 2.0}), {"method"}, set()),
        (lambda v: v["methods"].update(ka={"method": "ka", "pretrain_lr": 0.2}), set(), set()),
        (lambda v: v["recipes"]["tiny"].update(iterations=7), {"recipe"}, set()),
        (lambda v: v["recipes"]["tiny"].update(threads=2), {"recipe"}, {"evaluation"}),
        (lambda v: v["recipes"]["tiny"]["evaluation"].update(split="val"), set(), {"evaluation"}),
        (lambda v: v["recipes"]["tiny"]["evaluation"].update(select_every=2), {"recipe"}, {"evaluation"}),
        (lambda v: v["networks"]["small"].update(width=0.25), {"network"}, set()),
        (lambda v: v["networks"]["large"].update(width=0.25), {"teacher"}, set()),
        (lambda v: v.update(studies=["quickstart"], tracking={"uri": "sqlite:///other.db"}), set(), set()),
    ],
)
def test_a_change_reaches_the_slices_it_should(
    change: Callable[[dict[str, Any]], object], training: set[str], evaluation: set[str]
) -> None:
    assert _differing(change, lambda given: plan.training_slice(given, KD, "student")) == training
    assert _differing(change, lambda given: plan.evaluation_slice(given, KD)) == evaluation


def _differing(change: Callable[[dict[str, Any]], object], slices: Callable[[Params], plan.Slice]) -> set[str]:
    before, after = slices(params()), slices(params(change))
    return {key for key in before if before[key] != after[key]}


def test_what_is_scored_after_training_only_does_not_train_again() -> None:
    def unselected(values: dict[str, Any]) -> None:
        values["recipes"]["tiny"]["evaluation"] = {"split": "test", "batch": 1}

    def rescored(values: dict[str, Any]) -> None:
        values["recipes"]["tiny"]["evaluation"] = {"split": "test", "batch": 1, "short_side": 20}

    first, second = (plan.training_slice(params(change), KD, "student") for change in (unselected, rescored))
    assert first == second


def test_texts_of_a_slice_differ_even_where_their_values_are_equal() -> None:
    """Snakemake compares the values of `params:` as a set: two equal texts would hide a swap."""

    def same(values: dict[str, Any]) -> None:
        values["networks"]["large"] = values["networks"]["small"]

    texts = plan.training_slice(params(same), KD, "student")
    assert len(set(texts.values())) == len(texts)


def test_the_check_sees_every_method() -> None:
    assert _differing(lambda v: v["methods"].update(more={"method": "kd"}), plan.check_slice) == {"methods"}
    with pytest.raises(ConfigError, match="nobody"):
        plan.check_slice(params(lambda v: v["methods"].update(more={"method": "nobody"})))
