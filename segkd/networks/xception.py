"""Xception-41 (Chollet 2017) as DeepLabv3+ modified it for dense prediction (Chen et al. 2018, figure 4).

Keys: stem.0.conv, stem.0.bn, stem.1..., blocks.0.stack.conv1.conv_dw (and .bn_dw, .conv_pw, .bn_pw) ...
blocks.12.stack.conv3.bn_pw, blocks.N.shortcut.conv and .bn: those of timm's port of the authors' ImageNet weights.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import Backbone, Step, scaled, steps

MIDDLE = 8  # blocks of the middle flow: 2 + 3 * 3 + 8 * 3 + 2 * 3 = 41 layers with full or depthwise 3x3 kernels
EPSILON = 1e-3  # of the batch norms that the public weights were trained with


class SeparableConv(nn.Module):
    """3x3 depthwise convolution, norm, ReLU if `between`, 1x1 convolution, norm. No activation before or after."""

    def __init__(self, inside: int, outside: int, stride: int, dilation: int, between: bool) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inside, inside, 3, stride, dilation, dilation, groups=inside, bias=False)
        self.bn_dw = nn.BatchNorm2d(inside, EPSILON)
        self.conv_pw = nn.Conv2d(inside, outside, 1, bias=False)
        self.bn_pw = nn.BatchNorm2d(outside, EPSILON)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, h, w) -> (B, outside, ceil(h / stride), ceil(w / stride))."""
        x = self.bn_dw(self.conv_dw(x))
        if self.between:
            x = F.relu(x, inplace=True)
        return self.bn_pw(self.conv_pw(x))


class Block(nn.Module):
    """Three separable convolutions, a ReLU before each, the stride in the last; added to the identity.

    channels: before the block and after each convolution. The identity passes a 1x1 convolution and a norm where
    channels or stride change. All three convolutions have the dilation reached before the block.
    """

    def __init__(self, channels: tuple[int, int, int, int], step: Step, between: bool) -> None:
        super().__init__()
        self.stack = _stack(channels, step, between)
        same = channels[0] == channels[3] and step.stride == 1
        self.shortcut = None if same else conv_norm(channels[0], channels[3], 1, step.stride)

    def forward(self, x: Tensor) -> tuple[Stage, Tensor]:
        """The map before the last convolution, without and with its ReLU, and the sum, which has none yet."""
        inner = self.stack["conv2"](F.relu(self.stack["conv1"](F.relu(x)), inplace=True))
        stage = Stage(inner, F.relu(inner))
        out = self.stack["conv3"](stage.post)
        out += x if self.shortcut is None else self.shortcut(x)
        return stage, out


class Last(nn.Module):
    """Three separable convolutions, a ReLU after each and between their parts; no identity (end of the exit flow)."""

    def __init__(self, channels: tuple[int, int, int, int], step: Step) -> None:
        super().__init__()
        self.stack = _stack(channels, step, between=True)

    def forward(self, x: Tensor) -> Stage:
        """The map before and after its last ReLU."""
        x = F.relu(self.stack["conv1"](x), inplace=True)
        pre = self.stack["conv3"](F.relu(self.stack["conv2"](x), inplace=True))
        return Stage(pre, F.relu(pre))


class Xception(Backbone):
    """Modified aligned Xception: strided separable convolutions instead of max-pooling, a norm after every depthwise.

    between: a ReLU, too, between every depthwise and its 1x1 convolution, as the paper says; without it only the last
    block has them, as in the authors' code, which made the published numbers and all public weights (backbone
    `xception41-released`). middle: blocks of the middle flow, 8 for Xception-41 and 16 for Xception-65.

    Output stride: as ResNet's, so that the dilated network computes the strided one's values, and those between.

    Stages: the last map of stride 4 before it is strided (DeepLabv3+'s low-level features, section 3.1, with 256
    channels), the ends of the entry flow's second block, of the middle flow and of the exit flow.
    """

    def __init__(self, *, between: bool, output_stride: int, width: float, middle: int = MIDDLE) -> None:
        super().__init__()
        w32, w64, w128, w256, w728, w1024, w1536, w2048 = (
            scaled(channels, width) for channels in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        ends = [w64, w128, w256, *[w728] * (1 + middle)]
        plan = steps((2, 2, 2, *[1] * middle, 2, 1), start=2, limit=output_stride)
        self.stem = nn.ModuleList([conv_norm(3, w32, 3, 2), conv_norm(w32, w64, 3)])
        channels = [(inside, outside, outside, outside) for inside, outside in pairwise(ends)]
        channels.append((w728, w728, w1024, w1024))
        blocks = [Block(each, step, between) for each, step in zip(channels, plan[:-1], strict=True)]
        self.blocks = nn.ModuleList([*blocks, Last((w1024, w1536, w1536, w2048), plan[-1])])
        low, second, deep, last = plan[0].total, plan[1].total, plan[2].total, plan[-1].total
        self.stages = (Map(w256, low), Map(w256, second), Map(w728, deep), Map(w2048, last))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Stage, ...]:
        """The four stages before and after ReLU."""
        for conv in self.stem:
            x = F.relu(conv(x), inplace=True)
        first, second, *middle, exit_, last = self.blocks
        _, x = first(x)
        low, x = second(x)
        stages = [low, Stage(x, F.relu(x))]
        for block in middle:
            _, x = block(x)
        stages.append(Stage(x, F.relu(x)))
        _, x = exit_(x)
        return (*stages, last(x))


def conv_norm(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution `conv` and batch norm `bn`."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outside, EPSILON)))


def _stack(channels: tuple[int, int, int, int], step: Step, between: bool) -> nn.ModuleDict:
    strides = (1, 1, step.stride)
    convs = {
        f"conv{k}": SeparableConv(inside, outside, stride, step.previous, between)
        for k, ((inside, outside), stride) in enumerate(zip(pairwise(channels), strides, strict=True), start=1)
    }
    return nn.ModuleDict(convs)
