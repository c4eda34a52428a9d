"""ResNet-18, -34, -50 and -101 (He et al. 2016) for dense prediction, under torchvision's state-dict keys.

Keys: conv1, bn1, layer1.0.conv1 ... layer4.2.bn3, layerN.0.downsample.0 (conv) and .1 (norm). With the deep stem
`conv1` is a sequence: conv1.0 (conv), conv1.1 (norm), conv1.3 (conv), conv1.4 (norm), conv1.6 (conv), then bn1.
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import Backbone, Step, scaled, steps

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
STEM_STRIDE = {"conv7": 4, "deep": 4, "conv3": 2}


def conv3x3(inside: int, outside: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias; output size ceil(input / stride)."""
    return nn.Conv2d(inside, outside, 3, stride, padding=dilation, dilation=dilation, bias=False)


def shortcut(inside: int, outside: int, stride: int) -> nn.Sequential | None:
    """1x1 projection of the identity where channels or stride change, else None."""
    if inside == outside and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; returns the sum with the identity BEFORE its ReLU.

    `first` is the dilation of the convolution that carries the stride, `dilation` that of the one after it.
    """

    expansion = 1

    def __init__(self, inside: int, channels: int, stride: int, first: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inside, channels, stride, first)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, 1, dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(inside, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, h, w) -> (B, channels, h', w') before activation."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with the stride in the 3x3; returns the sum BEFORE its ReLU.

    `first` is the dilation of the 3x3; `dilation` has no use here, since only 1x1 convolutions follow.
    """

    expansion = 4

    def __init__(self, inside: int, channels: int, stride: int, first: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride, first)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = shortcut(inside, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, h, w) -> (B, 4 channels, h', w') before activation."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return out


class Layer(nn.Sequential):
    """The blocks of one stage; their ReLUs act here, so that the last block's sum is seen before and after its own."""

    def forward(self, x: Tensor) -> Stage:
        """The stage's map before and after its last ReLU."""
        *blocks, last = self
        for block in blocks:
            x = F.relu(block(x), inplace=True)
        pre = last(x)
        return Stage(pre, F.relu(pre))


class ResNet(Backbone):
    """ResNet with a choice of stem, output stride, multi-grid and width.

    Stems: `conv7` = 7x7 stride 2 and 3x3 max-pool stride 2; `deep` = three 3x3 (64 stride 2, 64, 128) and the max-pool
    (the CIRKD family); `conv3` = one 3x3 stride 2 without pooling, for tiny images: stage 1 then has stride 2, and
    output strides 4, 8 and 16 can be reached.

    Output stride: a stage whose stride would pass it gets stride 1 and twice the dilation; the convolution that
    carried the stride keeps the previous dilation (torchvision's replace_stride_with_dilation; the CIRKD family's
    "first block at half the dilation"). So the dilated network computes the strided one's values, and those between.

    `multi_grid`: factors on the last stage's dilation, one per block, first block included (DeepLabV3, section 3.2.2);
    (1, 1) or (1, 1, 1) gives the first block the full dilation too.
    """

    def __init__(
        self, name: str, *, stem: str, output_stride: int, multi_grid: tuple[int, ...] | None, width: float
    ) -> None:
        super().__init__()
        block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
        inside = scaled(128 if stem == "deep" else 64, width)
        self.conv1 = _stem(stem, scaled(64, width), inside)
        self.bn1 = nn.BatchNorm2d(inside)
        self.maxpool = nn.Identity() if stem == "conv3" else nn.MaxPool2d(3, 2, padding=1)
        plan = steps((1, 2, 2, 2), start=STEM_STRIDE[stem], limit=output_stride)
        bases = [scaled(64 * 2**k, width) for k in range(4)]
        outside = [base * block.expansion for base in bases]
        layers = [
            _layer(block, before, base, count, step, multi_grid if k == 3 else None)
            for k, ((before, _), base, count, step) in enumerate(
                zip(pairwise([inside, *outside]), bases, BLOCKS[name], plan, strict=True)
            )
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.stages = tuple(Map(channels, step.total) for channels, step in zip(outside, plan, strict=True))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Stage, ...]:
        """Outputs of layer1 to layer4 before and after their last ReLU."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        first = self.layer1(x)
        second = self.layer2(first.post)
        third = self.layer3(second.post)
        return first, second, third, self.layer4(third.post)


def _stem(kind: str, channels: int, outside: int) -> nn.Module:
    if kind == "conv7":
        return nn.Conv2d(3, outside, 7, 2, padding=3, bias=False)
    if kind == "conv3":
        return conv3x3(3, outside, 2)
    return nn.Sequential(
        conv3x3(3, channels, 2),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        conv3x3(channels, channels),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        conv3x3(channels, outside),
    )


def _layer(
    block: type[BasicBlock | Bottleneck],
    inside: int,
    channels: int,
    count: int,
    step: Step,
    grid: tuple[int, ...] | None,
) -> Layer:
    """One stage: `count` blocks, the first of which carries the stride."""
    if grid is None:
        dilations = [(step.previous, step.dilation)] + [(step.dilation, step.dilation)] * (count - 1)
    else:
        dilations = [(step.dilation * factor, step.dilation * factor) for factor in grid]
    blocks = []
    for k, (first, dilation) in enumerate(dilations):
        blocks.append(block(inside, channels, step.stride if k == 0 else 1, first, dilation))
        inside = channels * block.expansion
    return Layer(*blocks)
