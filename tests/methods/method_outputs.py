"""Small outputs of a student and a teacher, drawn from a seed."""

from __future__ import annotations

import torch

from segkd.networks.outputs import Channels, Map, Outputs, Stage

CLASSES = 5


def channels(width: int, stride: int = 4) -> Channels:
    stages = tuple(Map(width * 2**i, min(stride, 4 * 2**i)) for i in range(4))
    return Channels(Map(CLASSES, stride), Map(width, stride), stages)


def draw(shape: Channels, batch: int, size: int, generator: torch.Generator, grad: bool) -> Outputs:
    def tensor(one: Map) -> torch.Tensor:
        side = -(-size // one.stride)
        return torch.randn(batch, one.channels, side, side, generator=generator).requires_grad_(grad)

    stages = tuple(Stage(pre := tensor(one), pre.relu()) for one in shape.stages)
    return Outputs(tensor(shape.logits), tensor(shape.embedding), stages)
