"""The head of DeepLabV3 (Chen et al. 2017) as the CIRKD family builds it."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.networks.aspp import ASPP
from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import ConvNorm, Head, HeadOutputs, activated


class DeepLabV3(Head):
    """ASPP, Dropout 0.5, conv3x3-BN-ReLU-Dropout 0.1, 1x1 classifier, at the backbone's output stride.

    Maps: "context" = ASPP's projection before dropout. The embedding follows the last dropout, as CIRKD reads it.
    """

    def __init__(self, stages: tuple[Map, ...], channels: int, classes: int, rates: tuple[int, int, int]) -> None:
        super().__init__()
        inside, stride = stages[3]
        self.aspp = ASPP(inside, channels, rates)
        self.context_dropout = nn.Dropout(0.5)
        self.conv = ConvNorm(channels, channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.logits, self.embedding = Map(classes, stride), Map(channels, stride)
        self.maps = {"context": Map(channels, stride)}

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits at the output stride."""
        context = self.aspp(stages[3].post)
        refined: dict[str, Tensor] = {}
        x = self.context_dropout(self.refine("context", context.post, refined))
        embedding = self.dropout(activated(self.conv, x))
        return HeadOutputs(self.classifier(embedding), embedding, {"context": context}, refined)
