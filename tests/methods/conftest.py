"""Fixtures shared by the tests of all methods."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_outputs import CLASSES, draw

from segkd.methods.base import Progress
from segkd.networks.outputs import Channels, Outputs


@pytest.fixture
def pair() -> Callable[..., tuple[Outputs, Outputs, torch.Tensor]]:
    def make(
        student: Channels, teacher: Channels, batch: int = 2, size: int = 36, seed: int = 0
    ) -> tuple[Outputs, Outputs, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, CLASSES, (batch, size, size), generator=generator)
        labels[:, :5] = 255
        s, t = draw(student, batch, size, generator, True), draw(teacher, batch, size, generator, False)
        return s, t, labels

    return make


@pytest.fixture
def progress() -> Progress:
    return Progress(iteration=0, iterations=10, epoch=0, epochs=1)
