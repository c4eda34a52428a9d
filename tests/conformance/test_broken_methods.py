"""For every rule a method that breaks it: check_method names the rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from broken_losses import (
    Loss,
    aims_elsewhere,
    asks_the_process_group,
    cancels,
    computes_narrowly,
    counts_ignored,
    divides_by_labelled,
    divides_by_norm,
    draws_elsewhere,
    is_no_scalar,
    leaks,
    sees_ignored,
    sound,
    sums_the_batch,
    writes_into_labels,
    writes_into_the_teacher,
)
from torch import Tensor, nn

from segkd.errors import ConfigError
from segkd.methods import registry
from segkd.methods.base import Method, MethodConfig, OwnOptimiser, Progress
from segkd.networks.outputs import Channels, Outputs
from segkd.testing import RULES, ConformanceError, check_method


class OnePreset(MethodConfig):
    preset: Literal["paper"] = "paper"


BROKEN: list[tuple[str, Loss, str]] = [
    ("alone", asks_the_process_group, "process group"),
    ("alone", is_no_scalar, r"shape \(2,\)"),
    ("teacher", leaks, "a gradient to its embedding"),
    ("teacher", writes_into_the_teacher, "embedding has changed"),
    ("teacher", writes_into_labels, "labels has changed"),
    ("ignored", counts_ignored, "no gradient where all pixels are ignored"),
    ("ignored", divides_by_labelled, "finite where all pixels are ignored"),
    ("ignored", sees_ignored, "independent of what is at ignored pixels"),
    ("deterministic", draws_elsewhere, "differs"),
    ("autocast", computes_narrowly, "torch.bfloat16"),
    ("double", cancels, "within 1e-4"),
    ("degenerate", divides_by_norm, "zero maps of the student"),
    ("minimum", aims_elsewhere, "no gradient of loss where the student is the teacher"),
    ("batch", sums_the_batch, "independent of the batch size"),
]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Method]], str]:
    """Register a method for one test, as another package would."""

    def add(cls: type[Method]) -> str:
        registry.available()
        cls.name = "fake"
        monkeypatch.setitem(registry._METHODS, "fake", cls)
        return "fake"

    return add


class Plain(Method):
    Config: ClassVar[type[MethodConfig]] = OnePreset
    needs = frozenset({"logits", "embedding"})

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        return {"loss": sound(student, teacher, labels)}


def with_loss(loss: Loss) -> type[Method]:
    class Fake(Plain):
        def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
            return {"loss": loss(student, teacher, labels)}

    return Fake


class Counting(Plain):
    """Remembers in an attribute, which no state_dict holds."""

    calls = 0

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        self.calls += 1
        return {"loss": self.calls * sound(student, teacher, labels)}


class Weighing(Plain):
    def task_weight(self, progress: Progress, batch: int) -> float:
        return 1 / batch


class Judging(Plain):
    """A critic that divides by what may be 0."""

    def __init__(self, config: MethodConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        self.judge = nn.Conv2d(classes, 1, 1)

    def own_optimisers(self) -> tuple[OwnOptimiser, ...]:
        return (OwnOptimiser("judge", tuple(self.judge.parameters())),)

    def critic(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        return {"judge": (self.judge(student.logits / student.logits.norm()) - self.judge(teacher.logits)).mean()}


class Optioned(Plain):
    """One key that acts; the others are added by the tests."""

    class Config(OnePreset):
        weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        return {"loss": self.config.weight * sound(student, teacher, labels)}


class Dead(Optioned):
    class Config(Optioned.Config):
        temperature: float = 4.0


class HalfDead(Optioned):
    """One of the choices does nothing."""

    class Config(Optioned.Config):
        form: Literal["a", "b", "c"] = "a"

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        factor = 2 if self.config.form == "b" else 1
        return {"loss": factor * self.config.weight * sound(student, teacher, labels)}


class Idle(Optioned):
    """A key that is accepted where the weight is 0."""

    class Config(Optioned.Config):
        power: int = 2

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        return {"loss": self.config.weight * sound(student, teacher, labels) * self.config.power}


class Named(Optioned):
    """A key whose type says nothing about its values."""

    class Config(Optioned.Config):
        layer: str = "embedding"


class TwoPresets(Plain):
    """Accepts `released`, and does the same."""

    Config = MethodConfig


class Learning(Judging):
    """Its critic's learning rate acts in the optimiser alone: enough."""

    class Config(OnePreset):
        lr: float = 1e-3

    critic = Plain.critic

    def own_optimisers(self) -> tuple[OwnOptimiser, ...]:
        return (OwnOptimiser("judge", tuple(self.judge.parameters()), lr=self.config.lr),)


@pytest.mark.parametrize(("rule", "loss", "message"), BROKEN, ids=[loss.__name__ for _, loss, _ in BROKEN])
def test_a_broken_loss_is_noticed(
    rule: str, loss: Loss, message: str, registered: Callable[[type[Method]], str]
) -> None:
    with pytest.raises(ConformanceError, match=message) as caught:
        check_method(registered(with_loss(loss)))
    assert rule in caught.value.rules
    assert f"rule `{rule}`" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "method", "message"),
    [
        ("resumable", Counting, "no Python attributes"),
        ("batch", Weighing, "task_weight"),
        ("degenerate", Judging, "zero maps of the student"),
        ("keys", Dead, "'temperature' changes the training"),
        ("keys", HalfDead, "'form' changes the training"),
        ("keys", Idle, "'power' refused where it changes nothing .with weight 0"),
        ("keys", Named, "examples"),
        ("keys", TwoPresets, "'preset' changes the training"),
    ],
)
def test_a_broken_method_is_noticed(
    rule: str, method: type[Method], message: str, registered: Callable[[type[Method]], str]
) -> None:
    with pytest.raises(ConformanceError, match=message) as caught:
        check_method(registered(method))
    assert caught.value.rules == {rule}


@pytest.mark.parametrize("method", [Plain, Optioned, Learning])
def test_a_sound_method_of_another_package_passes(
    method: type[Method], registered: Callable[[type[Method]], str]
) -> None:
    check_method(registered(method))


def test_every_rule_has_a_method_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} | {"resumable", "keys"} == set(RULES)


def test_all_faults_come_in_one_error_that_is_an_assertion(registered: Callable[[type[Method]], str]) -> None:
    with pytest.raises(AssertionError) as caught:
        check_method(registered(with_loss(lambda s, t, labels: leaks(s, t, labels) * len(labels))))
    assert isinstance(caught.value, ConformanceError)
    assert caught.value.rules == {"teacher", "batch"}


def test_a_process_group_of_its_own_is_noticed(registered: Callable[[type[Method]], str], tmp_path: Path) -> None:
    def starts_a_group(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'm'}", rank=0, world_size=1)
        return sound(student, teacher, labels)

    try:
        with pytest.raises(ConformanceError, match="the method has started one"):
            check_method(registered(with_loss(starts_a_group)))
    finally:
        torch.distributed.destroy_process_group()


def test_a_method_that_fits_no_pair_of_networks_says_why(registered: Callable[[type[Method]], str]) -> None:
    class Picky(Plain):
        def __init__(self, config: MethodConfig, student: Channels, teacher: Channels, classes: int) -> None:
            raise ConfigError("needs 1000 classes")

    with pytest.raises(ConfigError, match="equal strides: needs 1000 classes"):
        check_method(registered(Picky))
