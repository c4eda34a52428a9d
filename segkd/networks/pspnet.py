"""The head of PSPNet (Zhao et al. 2017) as the CIRKD family and SKD build it."""

from __future__ import annotations

from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import ConvNorm, Head, HeadOutputs, activated, staged
from segkd.networks.resize import upsample

BINS = (1, 2, 3, 6)


def pooling_matrix(size: int, bins: int, like: Tensor) -> Float[Tensor, "bins size"]:
    """Row i averages the pixels floor(i size / bins) <= x < ceil((i + 1) size / bins): adaptive average pooling."""
    row = torch.arange(bins, device=like.device)[:, None]
    pixel = torch.arange(size, device=like.device)[None]
    inside = (pixel >= row * size // bins) & (pixel < -(-(row + 1) * size // bins))
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def pyramid(x: Float[Tensor, "b c h w"], bins: tuple[int, ...] = BINS) -> list[Tensor]:
    """Averages of `x` over n x n areas for each n of `bins`: maps (B, C, n, n).

    Equals adaptive_avg_pool2d, by products with small matrices: that function has no deterministic gradient on CUDA.
    """
    rows = torch.cat([pooling_matrix(x.shape[2], n, x) for n in bins])
    columns = torch.cat([pooling_matrix(x.shape[3], n, x) for n in bins])
    pooled = rows @ (x @ columns.T)
    ends = list(accumulate(bins))
    return [pooled[:, :, end - n : end, end - n : end] for n, end in zip(bins, ends, strict=True)]


class PSPNet(Head):
    """Averages over 1, 2, 3 and 6 bins, each projected to a quarter of the channels, joined with the map;
    conv3x3-BN-ReLU, Dropout 0.1, 1x1 classifier, at the backbone's output stride.

    Maps: "context" = the 3x3 that fuses the pyramid, before dropout. The embedding is the same map after dropout.
    """

    def __init__(self, stages: tuple[Map, ...], channels: int, classes: int) -> None:
        super().__init__()
        inside, stride = stages[3]
        quarter = max(1, inside // 4)
        self.pools = nn.ModuleList(ConvNorm(inside, quarter) for _ in BINS)
        self.fuse = ConvNorm(inside + len(BINS) * quarter, channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.logits, self.embedding = Map(classes, stride), Map(channels, stride)
        self.maps = {"context": Map(channels, stride)}

    def forward(self, stages: tuple[Stage, ...]) -> HeadOutputs:
        """Logits at the output stride."""
        x = stages[3].post
        size = (x.shape[2], x.shape[3])
        pooled = [activated(conv, part) for conv, part in zip(self.pools, pyramid(x), strict=True)]
        context = staged(self.fuse, torch.cat([x, *(upsample(part, size) for part in pooled)], 1))
        refined: dict[str, Tensor] = {}
        embedding = self.dropout(self.refine("context", context.post, refined))
        return HeadOutputs(self.classifier(embedding), embedding, {"context": context}, refined)
