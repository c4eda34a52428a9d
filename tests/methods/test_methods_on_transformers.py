"""Every method takes SegFormer-B0 as the student of SegFormer-B4 (CIRKD's table): one step, narrow, on tiny images."""

from __future__ import annotations

import functools
from typing import Literal, get_args

import pytest
import torch
from torch import Tensor

from segkd.config.network import NetworkConfig
from segkd.config.recipe import Augmentation, Optimiser, Recipe
from segkd.methods.base import Progress
from segkd.methods.registry import available, method_class, method_config
from segkd.networks.build import Network, build
from segkd.training.learner import StudentLearner, freeze

CLASSES = 5
RECIPE = Recipe(
    dataset="none",
    iterations=40,
    batch=2,
    augmentation=Augmentation(crop=(64, 64)),
    optimiser=Optimiser(name="sgd", lr=1),
)
CASES = [
    (name, preset)
    for name in available()
    for preset in get_args(method_class(name).Config.model_fields["preset"].annotation)
]


def network(backbone: Literal["mit-b0", "mit-b4"], channels: int, attention: Literal["none", "cbam"]) -> Network:
    fields = NetworkConfig(
        head="segformer",
        backbone=backbone,
        output_stride=32,
        width=1 / 16,
        head_channels=channels,
        attention=attention,
    )
    return build(fields, CLASSES)


@functools.cache
def teacher(attention: Literal["none", "cbam"]) -> Network:
    torch.manual_seed(1)
    found = network("mit-b4", 768, attention)
    freeze(found)
    return found


def learner(name: str, preset: str) -> StudentLearner:
    cls, config = method_class(name), method_config(name, {"preset": preset})
    torch.manual_seed(0)
    student, taught = network("mit-b0", 256, "none"), teacher(cls.teacher_variant(config))
    method = cls(config, student.channels, taught.channels, CLASSES)
    before = cls.pretraining(config, student.channels, taught.channels, CLASSES)
    if before is not None:
        method.adopt(before)
    return StudentLearner(student, RECIPE, method.train(), taught)


def gradients(one: StudentLearner, terms: dict[str, Tensor]) -> list[Tensor]:
    torch.stack(list(terms.values())).sum().backward()
    return [p.grad for p in one.network.parameters() if p.grad is not None]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_one_step_of_every_method(name: str, preset: str) -> None:
    """The student learns from the method's own terms; the critic, where there is one, learns, too."""
    one, progress = learner(name, preset), Progress(iteration=20, iterations=40, epoch=2, epochs=4)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 64, 64), generator=generator)
    labels[:, :5] = 255
    terms = one.terms(images, labels, progress)
    del terms["task"]
    slopes = gradients(one, terms)
    assert all(term.isfinite() for term in terms.values())
    assert all(slope.isfinite().all() for slope in slopes)
    assert sum(float(slope.square().sum()) for slope in slopes) > 0
    own = [p for optimiser in one.own_optimisers() for p in optimiser.parameters]
    critic = one.critic(progress)
    assert bool(critic) == bool(own)
    if critic:
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(sum(critic.values()), own))
