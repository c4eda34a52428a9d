"""The head of DeepLabV3+ (Chen et al. 2018) as AICSD and AttnFD use it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segkd.networks.aspp import ASPP
from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import ConvNorm, Head, HeadOutputs, activated, staged
from segkd.networks.resize import upsample


class DeepLabV3Plus(Head):
    """ASPP, Dropout 0.5, upsampled to stage 1 and joined with its 1x1 projection (48 channels); two conv3x3-BN-ReLU
    with Dropout 0.5 and 0.1, 1x1 classifier, at the stride of stage 1.

    Maps: "context" = ASPP's projection, "decoder" = the second 3x3, both before dropout. The embedding is the decoder's
    map after dropout.
    """

    def __init__(
        self, stages: tuple[Map, ...], channels: int, classes: int, rates: tuple[int, int, int], low_channels: int
    ) -> None:
        super().__init__()
        low, deep = stages[0], stages[3]
        self.aspp = ASPP(deep.channels, channels, rates)
        self.context_dropout = nn.Dropout(0.5)
        self.low = ConvNorm(low.channels, low_channels)
        self.fuse = ConvNorm(channels + low_channels, channels, 3)
        self.fuse_dropout = nn.Dropout(0.5)
        self.decode = ConvNorm(channels, channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.logits, self.embedding = Map(classes, low.stride), Map(channels, low.stride)
        self.maps = {"context": Map(channels, deep.stride), "decoder": Map(channels, low.stride)}

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits at the stride of stage 1."""
        context = self.aspp(stages[3].post)
        refined: dict[str, Tensor] = {}
        x = self.context_dropout(self.refine("context", context.post, refined))
        low = activated(self.low, stages[0].post)
        x = torch.cat([upsample(x, (low.shape[2], low.shape[3])), low], 1)
        decoder = staged(self.decode, self.fuse_dropout(activated(self.fuse, x)))
        embedding = self.dropout(self.refine("decoder", decoder.post, refined))
        return HeadOutputs(self.classifier(embedding), embedding, {"context": context, "decoder": decoder}, refined)
