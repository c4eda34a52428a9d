"""The plain FCN head (Long et al. 2015), as a network's head and as the auxiliary one on stage 3."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import ConvNorm, Head, HeadOutputs, activated


class FCN(Head):
    """conv3x3-BN-ReLU, Dropout 0.1, 1x1 classifier on stage 4, at the output stride; no named maps."""

    def __init__(self, stages: tuple[Map, ...], channels: int, classes: int) -> None:
        super().__init__()
        inside, stride = stages[3]
        self.conv = ConvNorm(inside, channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.logits, self.embedding = Map(classes, stride), Map(channels, stride)

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits at the output stride."""
        embedding = self.dropout(activated(self.conv, stages[3].post))
        return HeadOutputs(self.classifier(embedding), embedding)


class Auxiliary(nn.Module):
    """conv3x3 to a quarter of stage 3's channels, BN, ReLU, Dropout 0.1, 1x1 classifier (CIRKD family; SKD's DSN)."""

    def __init__(self, stage: Map, classes: int) -> None:
        super().__init__()
        quarter = max(1, stage.channels // 4)
        self.conv = ConvNorm(stage.channels, quarter, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(quarter, classes, 1)
        self.logits = Map(classes, stage.stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) of stage 3 after ReLU -> (B, classes, h, w)."""
        return self.classifier(self.dropout(activated(self.conv, x)))
