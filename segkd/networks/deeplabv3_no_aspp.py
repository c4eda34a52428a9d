"""DeepLabV3's head without atrous branches, as MobileNetV2's paper (Sandler et al. 2018, section 6.3) proposes it."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.networks.aspp import ASPP
from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import Head, HeadOutputs


class DeepLabV3NoASPP(Head):
    """1x1 and image pooling side by side, 1x1 projection, Dropout 0.1, 1x1 classifier, at the output stride.

    KA's student is MobileNetV2 with this head. The paper's 2.11 M parameters leave room for nothing else; the dropout,
    which costs none, is that of the other heads.

    Maps: "context" = the projection before dropout. The embedding is the same map after dropout.
    """

    def __init__(self, stages: tuple[Map, ...], channels: int, classes: int) -> None:
        super().__init__()
        inside, stride = stages[3]
        self.aspp = ASPP(inside, channels, ())
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.logits, self.embedding = Map(classes, stride), Map(channels, stride)
        self.maps = {"context": Map(channels, stride)}

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits at the output stride."""
        context = self.aspp(stages[3].post)
        refined: dict[str, Tensor] = {}
        embedding = self.dropout(self.refine("context", context.post, refined))
        return HeadOutputs(self.classifier(embedding), embedding, {"context": context}, refined)
