"""SegFormer's all-MLP decoder (Xie et al. 2021, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import ConvNorm, Head, HeadOutputs, staged
from segkd.networks.resize import bilinear


class SegFormer(Head):
    """A linear layer per stage and position, all enlarged to stage 1 and joined, last stage first; 1x1 convolution with
    norm and ReLU, Dropout 0.1, 1x1 classifier, at the stride of stage 1.

    channels: 256 with MiT-B0, 768 with MiT-B4. Enlarged bilinearly, corners NOT aligned, which the public weights of
    this head were trained with; the paper leaves it open.

    Maps: "decoder" = the fused map before dropout. The embedding is the same map after dropout.
    """

    def __init__(self, stages: tuple[Map, ...], channels: int, classes: int) -> None:
        super().__init__()
        stride = stages[0].stride
        self.linear = nn.ModuleList(nn.Conv2d(stage.channels, channels, 1) for stage in stages)
        self.fuse = ConvNorm(len(stages) * channels, channels)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.logits, self.embedding = Map(classes, stride), Map(channels, stride)
        self.maps = {"decoder": Map(channels, stride)}

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits at the stride of stage 1."""
        size = (stages[0].post.shape[2], stages[0].post.shape[3])
        maps = [linear(stage.post) for linear, stage in zip(self.linear, stages, strict=True)]
        wide = [maps[0], *(bilinear(x, size, align_corners=False) for x in maps[1:])]
        decoder = staged(self.fuse, torch.cat(wide[::-1], 1))
        refined: dict[str, Tensor] = {}
        embedding = self.dropout(self.refine("decoder", decoder.post, refined))
        return HeadOutputs(self.classifier(embedding), embedding, {"decoder": decoder}, refined)
