"""Inputs of a method: outputs of two tiny networks, drawn or computed, and labels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from segkd.config.network import NetworkConfig
from segkd.networks.build import Network, build
from segkd.networks.outputs import Channels, Map, Outputs, Stage

CLASSES = 5
SIZE = 32  # pixels of an image's side
IGNORE = 255
Attention = Literal["none", "cbam"]


@dataclass(frozen=True)
class Situation:
    """A pair of networks that a method may meet."""

    name: str
    student: NetworkConfig
    teacher: NetworkConfig

    def networks(self, attention: Attention) -> tuple[Network, Network]:
        """Student and teacher with fresh weights, the teacher with attention where it is asked for."""
        return build(self.student, CLASSES), build(attentive(self.teacher, attention), CLASSES)

    def channels(self, attention: Attention) -> tuple[Channels, Channels]:
        """What the two networks say about themselves."""
        return channels(self.student), channels(attentive(self.teacher, attention))

    def twins(self, attention: Attention) -> Situation:
        """The same teacher, with a student of exactly its kind."""
        return replace(self, name=f"{self.name}-twins", student=attentive(self.teacher, attention))


def attentive(config: NetworkConfig, attention: Attention) -> NetworkConfig:
    """The network with `attention` where that is not "none", as it is otherwise."""
    return config if attention == "none" else config.model_copy(update={"attention": attention})


@functools.cache
def channels(config: NetworkConfig) -> Channels:
    """Channels of a network, which is built for it once."""
    with torch.random.fork_rng(devices=[]):
        return build(config, CLASSES).channels


def _network(
    head: Literal["fcn", "deeplabv3plus"], width: float, stride: Literal[4, 8], *, auxiliary: bool = False
) -> NetworkConfig:
    return NetworkConfig(
        head=head,
        backbone="resnet18",
        stem="conv3",
        output_stride=stride,
        width=width,
        head_channels=128,
        auxiliary=auxiliary,
    )


STUDENT, TEACHER = 1 / 16, 1 / 8
SITUATIONS = (
    Situation(
        "equal strides",
        _network("fcn", STUDENT, 4, auxiliary=True),
        _network("fcn", TEACHER, 4, auxiliary=True),
    ),
    Situation(
        "pyramid and decoder",
        _network("deeplabv3plus", STUDENT, 8),
        _network("deeplabv3plus", TEACHER, 8),
    ),
    Situation("coarser student", _network("fcn", STUDENT, 8), _network("fcn", TEACHER, 4)),
)


@dataclass(frozen=True)
class Case:
    """What a method gets in one step; labels: (B, H, W) int64, 255 = ignored."""

    student: Outputs
    teacher: Outputs
    labels: Tensor

    def mapped(
        self, student: Callable[[Tensor], Tensor] | None = None, teacher: Callable[[Tensor], Tensor] | None = None
    ) -> Case:
        """The case with every map of a side changed by a function."""
        return replace(
            self,
            student=mapped(self.student, student) if student else self.student,
            teacher=mapped(self.teacher, teacher) if teacher else self.teacher,
        )

    def labelled(self, labels: Tensor) -> Case:
        """The case with other labels."""
        return replace(self, labels=labels)


def flat(outputs: Outputs) -> dict[str, Tensor]:
    """Every tensor of the outputs by name: "logits", "stages.0.pre", "head.context.post", "attention.stage4", ..."""
    found = {"logits": outputs.logits, "embedding": outputs.embedding}
    if outputs.auxiliary is not None:
        found["auxiliary"] = outputs.auxiliary
    staged = {f"stages.{i}": stage for i, stage in enumerate(outputs.stages)}
    staged |= {f"head.{name}": stage for name, stage in outputs.head.items()}
    for name, stage in staged.items():
        found |= {f"{name}.pre": stage.pre, f"{name}.post": stage.post}
    return found | {f"attention.{name}": tensor for name, tensor in outputs.attention.items()}


def rebuilt(tensors: Mapping[str, Tensor]) -> Outputs:
    """Inverse of `flat`."""
    stages: dict[str, Stage] = {
        name.removesuffix(".pre"): Stage(tensor, tensors[name.removesuffix("pre") + "post"])
        for name, tensor in tensors.items()
        if name.endswith(".pre")
    }
    return Outputs(
        tensors["logits"],
        tensors["embedding"],
        tuple(stage for name, stage in stages.items() if name.startswith("stages.")),
        tensors.get("auxiliary"),
        {name.removeprefix("head."): stage for name, stage in stages.items() if name.startswith("head.")},
        {name.removeprefix("attention."): t for name, t in tensors.items() if name.startswith("attention.")},
    )


def mapped(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The outputs with every tensor changed by a function."""
    return rebuilt({name: change(tensor) for name, tensor in flat(outputs).items()})


def draw_outputs(shape: Channels, images: int, size: tuple[int, int], generator: torch.Generator) -> Outputs:
    """Outputs for images of a size, drawn from a normal distribution; a map's size is ceil(image size / stride)."""

    def tensor(one: Map) -> Tensor:
        height, width = (-(-side // one.stride) for side in size)
        return torch.randn(images, one.channels, height, width, generator=generator)

    def stage(one: Map) -> Stage:
        pre = tensor(one)
        return Stage(pre, pre.relu())

    return Outputs(
        tensor(shape.logits),
        tensor(shape.embedding),
        tuple(stage(one) for one in shape.stages),
        None if shape.auxiliary is None else tensor(shape.auxiliary),
        {name: stage(one) for name, one in shape.head.items()},
        {name: tensor(one) for name, one in shape.attention.items()},
    )


def draw_labels(
    images: int, size: tuple[int, int], generator: torch.Generator, *, classes: int = CLASSES, ignored: float = 0.1
) -> Int[Tensor, "b h w"]:
    """Labels of the first `classes` classes; a share of `ignored` pixels is 255."""
    labels = torch.randint(0, classes, (images, *size), generator=generator)
    return labels.masked_fill(torch.rand(labels.shape, generator=generator) < ignored, IGNORE)


def draw_case(
    shapes: tuple[Channels, Channels], *, images: int = 2, size: tuple[int, int] = (SIZE, SIZE), seed: int = 0
) -> Case:
    """Outputs of student and teacher, and labels, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (draw_outputs(shape, images, size, generator) for shape in shapes)
    return Case(student, teacher, draw_labels(images, size, generator))
