"""CBAM, the convolutional block attention module (Woo et al. 2018), as AttnFD uses it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkd.networks.parts import BatchNorm


class ChannelGate(nn.Module):
    """Scale every channel by sigmoid(MLP(mean over the map) + MLP(max over the map)); one MLP for both."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The scaled map. Equal maxima share the gradient evenly, which keeps it deterministic on every device."""
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        return x * gate[:, :, None, None]


class SpatialGate(nn.Module):
    """Scale every position by sigmoid(norm(conv7x7([max over channels, mean over channels])))."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = BatchNorm(1, momentum=0.01)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The scaled map."""
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.norm(self.conv(pooled)))


class CBAM(nn.Module):
    """Channel gate, then spatial gate, on (B, channels, h, w), activated or not."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The refined map."""
        return self.spatial(self.channel(x))
