"""Recipe keys for the slips of released code: a teacher in train mode, a first epoch that stands still, CE / B."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_project import TINY
from torch import Tensor

from segkd import steps
from segkd.config.params import Params
from segkd.config.recipe import Recipe
from segkd.config.runs import Run
from segkd.methods.base import Progress
from segkd.methods.registry import method_class, method_config
from segkd.networks.build import Network, build
from segkd.training import loop
from segkd.training.learner import StudentLearner, cross_entropy, freeze

CLASSES = 4
FIRST, SECOND = Progress(3, 20, 0, 2), Progress(12, 20, 1, 2)


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(TINY["recipes"]["tiny"] | changes)


@pytest.fixture(scope="module")
def networks() -> tuple[Network, Network]:
    torch.manual_seed(0)
    configs = Params.model_validate(TINY).networks
    return build(configs["small"], CLASSES), build(configs["large"], CLASSES)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 3, 32, 32), torch.randint(0, CLASSES, (3, 32, 32))


def learner(pair: tuple[Network, Network], rule: Recipe, name: str = "kd", **options: Any) -> StudentLearner:
    student, teacher = (copy.deepcopy(one) for one in pair)
    config = method_config(name, options)
    method = method_class(name)(config, student.channels, teacher.channels, CLASSES).train()
    return StudentLearner(student.train(), rule, method, freeze(teacher))


@pytest.mark.parametrize("method", [("kd", {}), ("icsd", {"preset": "released"}), ("attnfd", {"preset": "released"})])
def test_cross_entropy_is_divided_by_the_batch_once(
    networks: tuple[Network, Network], batch: tuple[Tensor, Tensor], method: tuple[str, dict[str, Any]]
) -> None:
    """Recipe and preset both say so: the recipe for the rows beside, the preset where the recipe does not."""
    found = learner(networks, recipe(cross_entropy_per_image=True), method[0], **method[1])
    torch.manual_seed(2)
    task = found.terms(*batch, SECOND)["task"]
    torch.manual_seed(2)
    whole = cross_entropy(learner(networks, recipe()).network(batch[0]).logits, batch[1])
    torch.testing.assert_close(task, whole / 3)


def test_adaptive_weight_and_division_go_together(
    networks: tuple[Network, Network], batch: tuple[Tensor, Tensor]
) -> None:
    values = []
    for per_image in (False, True):
        found = learner(networks, recipe(cross_entropy_per_image=per_image), "aicsd", preset="released", epochs=4)
        torch.manual_seed(2)
        values.append(found.terms(*batch, SECOND)["task"])
    torch.testing.assert_close(*values)


@pytest.mark.parametrize(("epochs", "first"), [(0, set()), (1, {"backbone", "head"}), (2, {"backbone", "head"})])
def test_still_epochs_hold_a_taught_student_and_nothing_else(
    networks: tuple[Network, Network], epochs: int, first: set[str]
) -> None:
    rule = recipe(still_epochs=epochs)
    taught, alone = learner(networks, rule), StudentLearner(networks[0], rule)
    assert taught.still(FIRST) == first
    assert taught.still(SECOND) == (first if epochs == 2 else set())
    assert alone.still(FIRST) == set()


def test_a_preset_that_stands_still_does_so_under_any_recipe(networks: tuple[Network, Network]) -> None:
    assert learner(networks, recipe(), "icsd", preset="released").still(FIRST) == {"backbone", "head"}


@pytest.mark.fault("P7", "a teacher in train mode, as released code has it")
def test_a_teacher_in_train_mode_uses_the_batch_drops_out_and_stays_as_it_is(
    networks: tuple[Network, Network], batch: tuple[Tensor, Tensor]
) -> None:
    calm, busy = learner(networks, recipe()), learner(networks, recipe(teacher_mode="train"))
    assert calm.teacher is not None
    assert busy.teacher is not None
    before = {name: value.clone() for name, value in busy.teacher.state_dict().items()}
    plain = copy.deepcopy(networks[1]).train()
    outputs = []
    for network in (plain, busy.teacher, busy.teacher, calm.teacher):
        torch.manual_seed(3)
        outputs.append(network(batch[0]).logits.detach())
    torch.testing.assert_close(outputs[1], outputs[0])  # what train mode computes, dropout included
    torch.testing.assert_close(outputs[2], outputs[0])  # also after a forward pass: nothing drifts
    assert not torch.allclose(outputs[3], outputs[0])
    assert all(torch.equal(value, before[name]) for name, value in busy.teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in busy.teacher.parameters())


def test_a_whole_run_under_the_released_rules(
    new_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 images, 4 a batch: the network stands still for 4 updates, then moves; the teacher comes out as it went in."""

    def change(values: dict[str, Any]) -> None:
        values["recipes"]["tiny"] |= {"teacher_mode": "train", "still_epochs": 1, "cross_entropy_per_image": True}

    root = new_project(change=change)
    steps.teacher(Run("tiny", "large"), steps.Options(root=root))
    moved: list[bool] = []
    update = loop.update

    def watching(run: loop.Training, progress: Progress) -> None:
        before = [value.detach().clone() for value in run.learner.result.parameters()]
        update(run, progress)
        now = run.learner.result.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, now, strict=True)))

    monkeypatch.setattr(loop, "update", watching)
    steps.student(Run("tiny", "small", "kd", "large"), steps.Options(root=root))
    assert moved == [False] * 4 + [True] * 2
