"""What a training step is measured on: two networks, a method between them, drawn data, and the loop's own parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segkd.config.network import NetworkConfig
from segkd.config.recipe import Augmentation, Optimiser, Recipe, Scale
from segkd.data.augmentation import normalise
from segkd.data.loading import Batch
from segkd.methods import registry
from segkd.methods.base import Method, Progress
from segkd.networks.build import Network, build
from segkd.tracking.journal import Journal
from segkd.training.device import Place
from segkd.training.learner import StudentLearner, freeze
from segkd.training.loop import Training
from segkd.training.progress import Display
from segkd.training.run import student_plan


class Shape(NamedTuple):
    """A network: head, backbone, factor on its channels."""

    head: str
    backbone: str
    width: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Shape:
        """`deeplabv3/resnet18` or `deeplabv3/resnet18/0.5`."""
        head, backbone, *width = text.split("/")
        return cls(head, backbone, *map(float, width))

    def __str__(self) -> str:
        return f"{self.head}/{self.backbone}" + (f" x{self.width:g}" if self.width != 1 else "")


@dataclass(frozen=True)
class Sizes:
    """How large everything is. Images on disk have twice the crop's height and width, as Cityscapes' have."""

    student: Shape
    teacher: Shape
    crop: tuple[int, int]
    batch: int
    classes: int
    images: int

    @property
    def image(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return 2 * self.crop[0], 2 * self.crop[1]

    def __str__(self) -> str:
        return (
            f"{self.teacher} teaches {self.student}, crops of {self.crop[0]} x {self.crop[1]}, "
            f"batch {self.batch}, {self.classes} classes"
        )


RESNET18 = Shape("deeplabv3", "resnet18")
CPU_SIZES = Sizes(RESNET18._replace(width=0.5), RESNET18, (256, 512), 2, 19, images=6)
GPU_SIZES = Sizes(RESNET18, Shape("deeplabv3", "resnet101"), (512, 1024), 8, 19, images=16)
TINY = Sizes(RESNET18._replace(width=0.0625), RESNET18._replace(width=0.125), (32, 64), 2, 5, images=2)


def recipe(sizes: Sizes) -> Recipe:
    """The papers' protocol in the large: random scale, crop, flip; SGD."""
    return Recipe(
        dataset="drawn",
        iterations=1000,
        batch=sizes.batch,
        augmentation=Augmentation(crop=sizes.crop, scale=Scale(low=0.5, high=2.0, step=0.1)),
        optimiser=Optimiser(name="sgd", lr=1e-5, weight_decay=1e-4),  # small: drawn labels teach nothing
    )


def halfway(sizes: Sizes) -> Progress:
    """Halfway through training, where every term of every method counts."""
    plan = student_plan(recipe(sizes), sizes.images, 0.0)
    return plan.progress(plan.iterations // 2)


@dataclass
class Pair:
    """A student with its method and its teacher, ready to train on a device."""

    student: Network
    teacher: Network | None = None
    method: Method | None = None
    learner: StudentLearner = field(init=False)

    def __post_init__(self) -> None:
        self.parts: list[nn.Module] = [x for x in (self.student, self.teacher, self.method) if x is not None]


def pair(name: str, sizes: Sizes, place: Place) -> Pair:
    """The networks and the method `name` in its preset `paper`, drawn with seed 0; `none` has no teacher."""
    torch.manual_seed(0)
    student = _network(sizes.student, sizes.classes, "none")
    if name == "none":
        made = Pair(student)
    else:
        cls = registry.method_class(name)
        config = registry.method_config(name, {})
        teacher = _network(sizes.teacher, sizes.classes, cls.teacher_variant(config))
        _settle(teacher, sizes)
        method = cls(config, student.channels, teacher.channels, sizes.classes)
        pretraining = cls.pretraining(config, student.channels, teacher.channels, sizes.classes)
        if pretraining is not None:
            method.adopt(pretraining)
        made = Pair(student, teacher, method.train())
    for part in made.parts:
        place.module(part)
    made.learner = StudentLearner(made.student.train(), recipe(sizes), made.method, made.teacher)
    return made


def _network(shape: Shape, classes: int, attention: str) -> Network:
    described = {"head": shape.head, "backbone": shape.backbone, "width": shape.width, "attention": attention}
    return build(NetworkConfig.model_validate(described), classes)


def _settle(teacher: Network, sizes: Sizes) -> None:
    """Running statistics of one batch, so that an untrained teacher's maps are as large as a trained one's."""
    for part in teacher.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        teacher.train()(torch.randn(2, 3, *sizes.crop))
    freeze(teacher)


def network_inputs(batch: Batch, sizes: Sizes, place: Place) -> tuple[Tensor, Tensor]:
    """(normalised images, labels) of a batch, as the loop hands them to the learner."""
    return normalise(place.images(batch.images), batch.boxes, recipe(sizes).augmentation), batch.labels.long()


def backward(terms: Mapping[str, Tensor]) -> None:
    """Gradients of the sum of the terms."""
    torch.stack(list(terms.values())).sum().backward()


def training(made: Pair, sizes: Sizes, place: Place, folder: Path, steps: int, log_every: int = 1) -> Training:
    """The loop's state for `steps` steps of this pair, every `log_every`-th written to a journal in `folder`.

    The plan is twice as long, so that a measurement ends where its batches end, before a state is written.
    """
    plan = replace(student_plan(recipe(sizes), sizes.images, float("inf")), iterations=2 * steps, log_every=log_every)
    journal, display = Journal(folder / "metrics.jsonl"), Display("step", plan.iterations, seconds=float("inf"))
    return Training(folder, made.learner, plan, place, journal, display, {})
