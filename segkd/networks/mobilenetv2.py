"""MobileNetV2 (Sandler et al. 2018) up to its 320-channel block, under torchvision's state-dict keys.

Keys: features.0.0 and .1 (stem), features.1.conv... to features.17.conv...; torchvision's features.18 (1280 channels)
and classifier are left out, as DeepLab does on this backbone.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import Backbone, steps

# expansion, channels, repeats, stride of each group (table 2 of the paper)
GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
ENDS = (3, 6, 13, 17)  # last block of the groups with 24, 32, 96 and 320 channels


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of 8 nearest to a channel count, at least 8, and at least 90 % of the count (torchvision's rule)."""
    found = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return found if found >= 0.9 * channels else found + divisor


def conv_norm_act(
    inside: int, outside: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Module:
    """Convolution, batch norm, ReLU6."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; added to the identity where the shapes allow."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        hidden = inside * expansion
        self.residual = stride == 1 and inside == outside
        expand = [conv_norm_act(inside, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_norm_act(hidden, hidden, 3, stride, dilation, groups=hidden),
            nn.Conv2d(hidden, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, h, w) -> (B, outside, h', w')."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNetV2 with output stride and width.

    A group whose stride would pass the output stride gets stride 1, and it and all after it twice the dilation, first
    block included (protocols, section 1.1). `width` follows torchvision's rule: channel counts are multiples of 8.

    The four stages are the outputs of the groups with 24, 32, 96 and 320 channels. Their blocks end in a linear
    bottleneck: no activation follows the projection, so `pre` and `post` are the same map.
    """

    linear = True

    def __init__(self, *, output_stride: int, width: float) -> None:
        super().__init__()
        inside = divisible(32 * width)
        features: list[nn.Module] = [conv_norm_act(3, inside, 3, 2)]
        reached: list[Map] = [Map(inside, 2)]
        plan = steps((group[3] for group in GROUPS), start=2, limit=output_stride)
        for (expansion, channels, repeats, _), step in zip(GROUPS, plan, strict=True):
            outside = divisible(channels * width)
            for k in range(repeats):
                stride = step.stride if k == 0 else 1
                features.append(InvertedResidual(inside, outside, stride, expansion, step.dilation))
                reached.append(Map(outside, step.total))
                inside = outside
        self.features = nn.Sequential(*features)
        self.stages = tuple(reached[end] for end in ENDS)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Stage, ...]:
        """Outputs of the groups with 24, 32, 96 and 320 channels (times width)."""
        stages = []
        for index, feature in enumerate(self.features):
            x = feature(x)
            if index in ENDS:
                stages.append(Stage(x, x))
        return tuple(stages)
