"""The tensors that losses are measured on: sizes, and how each is drawn from torch's global generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Inputs = tuple[Tensor, ...]
IGNORED = 0.05  # share of labels


@dataclass(frozen=True)
class Dims:
    """Images, channels of student and teacher, the map, classes."""

    images: int = 2
    student: int = 128
    teacher: int = 512
    height: int = 64
    width: int = 128
    classes: int = 19

    @property
    def image(self) -> tuple[int, int]:
        """(height, width) of the labels: 8 times the map, or, where odd, corners aligned at stride 4."""
        if self.height % 2:
            return 4 * (self.height - 1) + 1, 4 * (self.width - 1) + 1
        return 8 * self.height, 8 * self.width

    def __str__(self) -> str:
        channels = f"{self.student}" if self.student == self.teacher else f"{self.student}/{self.teacher}"
        return f"{self.images} x {channels} x {self.height} x {self.width}"


def feature(d: Dims, channels: int) -> Tensor:
    """One map, normally distributed."""
    return torch.randn(d.images, channels, d.height, d.width)


def pair(d: Dims) -> Inputs:
    """Student, which requires a gradient, and teacher."""
    return feature(d, d.student).requires_grad_(), feature(d, d.teacher)


def connected(d: Dims) -> Inputs:
    """`pair` and the weight of a 1x1 convolution between them, which requires a gradient, too."""
    weight = torch.randn(d.teacher, d.student, 1, 1) / d.student**0.5
    return *pair(d), weight.requires_grad_()


def labels(d: Dims) -> Tensor:
    """Squares of 32 x 32 pixels of one class each, and ignored pixels here and there."""
    height, width = d.image
    coarse = torch.randint(0, d.classes, (d.images, -(-height // 32), -(-width // 32)))
    fine = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, :height, :width].contiguous()
    return fine.masked_fill_(torch.rand(fine.shape) < IGNORED, 255)


def labelled(d: Dims) -> Inputs:
    """`pair` and labels."""
    return *pair(d), labels(d)


def judged(d: Dims) -> Inputs:
    """Student logits and labels."""
    return feature(d, d.student).requires_grad_(), labels(d)


def remembered(d: Dims) -> Inputs:
    """`labelled`, a contrast of the pixel memory and one of the region memory: unit rows."""
    numbers = (d.classes * (n // d.classes + 1) for n in (4096, 1024))
    return *labelled(d), *(functional.normalize(torch.randn(n, d.teacher), dim=1) for n in numbers)


def margins(d: Dims) -> Inputs:
    """`pair` and a negative margin for each channel."""
    return *pair(d), -torch.rand(d.teacher)


def levels(d: Dims) -> Inputs:
    """Stages 2, 3, 4 and the embedding of the student, then of the teacher, all at one stride."""
    factors = (0.5, 1, 2, 1)
    ours = (feature(d, int(d.student * factor)).requires_grad_() for factor in factors)
    return *ours, *(feature(d, int(d.teacher * factor)) for factor in factors)
