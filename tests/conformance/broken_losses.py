"""Losses that each break one rule, and one that breaks none."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from segkd.networks.outputs import Outputs

Loss = Callable[[Outputs, Outputs, Tensor], Tensor]


def distance(s: Tensor, t: Tensor) -> Tensor:
    """The plainest loss that keeps the rules: both maps' means over the channels."""
    wide = torch.promote_types(s.dtype, torch.float32)
    return (s.to(wide).mean(1) - t.detach().to(wide).mean(1)).square().mean()


def sound(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return distance(student.embedding, teacher.embedding)


def labels_as_weights(student: Outputs, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Squares of the student's logits, and labels, at the logits' positions."""
    step = labels.shape[-1] // student.logits.shape[-1]
    squares = student.logits.square().mean(1).to(torch.promote_types(student.logits.dtype, torch.float32))
    return squares, labels[:, ::step, ::step]


def counts_ignored(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    squares, small = labels_as_weights(student, labels)
    return (squares * (1 + small)).mean()


def divides_by_labelled(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    squares, small = labels_as_weights(student, labels)
    return (squares * small)[small != 255].mean()


def sees_ignored(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    squares, small = labels_as_weights(student, labels)
    return squares.mean() * small.where(small != 255, 0).float().mean()


def leaks(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return (student.embedding.float().mean(1) - teacher.embedding.float().mean(1)).square().mean()


def writes_into_the_teacher(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    with torch.no_grad():
        teacher.embedding.mul_(0.5)
    return sound(student, teacher, labels)


def writes_into_labels(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    labels[labels == 255] = 0
    return sound(student, teacher, labels)


def asks_the_process_group(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return sound(student, teacher, labels) / torch.distributed.get_world_size()


def is_no_scalar(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return student.embedding.float().mean((1, 2, 3))


def draws_elsewhere(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return sound(student, teacher, labels) * random.random()


def computes_narrowly(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return (student.embedding.mean(1) - teacher.embedding.detach().mean(1)).square().mean()


def cancels(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    s, t = (torch.promote_types(x.dtype, torch.float32) for x in (student.embedding, teacher.embedding))
    return distance(student.embedding.to(s) + 1e4, teacher.embedding.to(t) + 1e4)


def divides_by_norm(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    directions = [x / x.norm(dim=1, keepdim=True) for x in (student.embedding, teacher.embedding.detach())]
    return distance(*directions)


def aims_elsewhere(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return distance(student.embedding, 1.1 * teacher.embedding)


def sums_the_batch(student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
    return sound(student, teacher, labels) * len(labels)
