"""What backbones and heads are made of: their interfaces, the width rule, strides traded for dilation, conv + norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.networks.init import initialise
from segkd.networks.outputs import Map, Stage


class Backbone(nn.Module):
    """Image -> four stages. `stages` says their channels and strides; sizes are ceil(input size / stride).

    linear: the stages end without activation, so that `pre` and `post` are one map.
    """

    stages: tuple[Map, ...]
    linear: ClassVar[bool] = False

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Stage, ...]:
        """The four stages' outputs before and after their last activation."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Fresh weights from torch's global generator, by the rules of convolutional networks."""
        initialise(self)


@dataclass(frozen=True)
class HeadOutputs:
    """A head's part of `Outputs`."""

    logits: Tensor
    embedding: Tensor
    maps: dict[str, Stage] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)


class Head(nn.Module):
    """Four stages -> logits. `logits`, `embedding` and `maps` say channels and strides of what `forward` returns.

    `attention` holds a CBAM for each of `maps` in networks with `attention: cbam`, and nothing in others.
    """

    logits: Map
    embedding: Map
    maps: dict[str, Map]

    def __init__(self) -> None:
        super().__init__()
        self.maps = {}
        self.attention = nn.ModuleDict()

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits and named maps at the head's own stride; `stages[3].post` may be a refined map."""
        raise NotImplementedError

    def refine(self, name: str, x: Tensor, refined: dict[str, Tensor]) -> Tensor:
        """`x` refined by the CBAM of that name, noted in `refined`; `x` itself in networks without attention."""
        if name not in self.attention:
            return x
        refined[name] = self.attention[name](x)
        return refined[name]


def scaled(channels: int, width: float) -> int:
    """A channel count times the width factor, rounded half up, at least 1."""
    return max(1, int(channels * width + 0.5))


class Step(NamedTuple):
    """One part of a backbone: its stride, the dilation before it, its own dilation, the stride of its output."""

    stride: int
    previous: int
    dilation: int
    total: int


def steps(strides: Iterable[int], *, start: int, limit: int) -> list[Step]:
    """Trade strides for dilation so that the output's stride stays within `limit` (the network's output stride).

    `start` is the stride before the first part. A stride that would pass the limit becomes 1; the dilation grows by it.
    """
    found, total, dilation = [], start, 1
    for stride in strides:
        previous = dilation
        if total * stride > limit:
            dilation, stride = dilation * stride, 1  # noqa: PLW2901
        total *= stride
        found.append(Step(stride, previous, dilation, total))
    return found


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes a single value per channel: it uses the running statistics, and leaves them.

    PyTorch refuses to train on one value per channel (a batch of 1 after image pooling): its variance is 0 and the
    output would be the bias whatever the input. With the running statistics the value still counts.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class ConvNorm(nn.Sequential):
    """Convolution without bias, then BatchNorm; "same" size at stride 1. Keys `0` and `1`. No activation."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(inside, outside, kernel, padding=padding, dilation=dilation, bias=False), BatchNorm(outside)
        )


def activated(conv: nn.Module, x: Tensor) -> Tensor:
    """ReLU of `conv(x)` in place, where nobody asks for the map before the activation."""
    return F.relu(conv(x), inplace=True)


def staged(conv: nn.Module, x: Tensor) -> Stage:
    """`conv(x)` before and after ReLU."""
    pre = conv(x)
    return Stage(pre, F.relu(pre))
