"""Atrous spatial pyramid pooling (DeepLabV3, section 3.3), and what is left of it without atrous branches."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkd.networks.outputs import Stage
from segkd.networks.parts import ConvNorm, activated, staged

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
TINY_RATES = {4: (2, 4, 6), 8: (1, 2, 3), 16: (1, 2, 3)}


def rates(output_stride: int, stem: str) -> tuple[int, int, int]:
    """Dilations of the three 3x3 branches: the papers', and small ones for the tiny images of stem `conv3`.

    At the papers' rates a 3x3 kernel on a map smaller than the rate has only its centre inside.
    """
    return TINY_RATES[output_stride] if stem == "conv3" or output_stride == 4 else RATES[output_stride]


class ASPP(nn.Module):
    """1x1, dilated 3x3 (three, or none) and image pooling side by side, projected by a 1x1; no dropout inside.

    The image branch is one value per channel and image, spread over the map; see `BatchNorm` for a batch of 1.
    """

    def __init__(self, inside: int, outside: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvNorm(inside, outside), *(ConvNorm(inside, outside, 3, rate) for rate in dilations)]
        )
        self.image = ConvNorm(inside, outside)
        self.project = ConvNorm((2 + len(dilations)) * outside, outside)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Stage:
        """(B, inside, h, w) -> (B, outside, h, w) before and after the projection's ReLU."""
        maps = [activated(branch, x) for branch in self.branches]
        pooled = activated(self.image, x.mean((2, 3), keepdim=True))
        maps.append(pooled.expand(-1, -1, *x.shape[2:]))
        return staged(self.project, torch.cat(maps, 1))
