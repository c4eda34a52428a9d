"""MiT-B0 and MiT-B4, the encoders of SegFormer (Xie et al. 2021, section 3.1).

Keys: patch_embedK.proj and .norm, blockK.N.norm1, .attn.q, .attn.kv, .attn.proj, .attn.sr, .attn.norm, .norm2,
.mlp.fc1, .mlp.dwconv, .mlp.fc2, normK, for K from 1 to 4: the authors', whose `mlp.dwconv.dwconv` is `mlp.dwconv`.
"""

from __future__ import annotations

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.networks.outputs import Map, Stage
from segkd.networks.parts import Backbone, scaled

SIZES = {"mit-b0": (32, (2, 2, 2, 2)), "mit-b4": (64, (3, 8, 27, 3))}  # channels of a head, blocks of each stage
HEADS = (1, 2, 5, 8)
STRIDES = (4, 2, 2, 2)
REDUCTIONS = (8, 4, 2, 1)  # keys and values are taken at 1 / R of the height and of the width
EXPANSION = 4  # of Mix-FFN: that of the public weights and of the published counts (the paper's table 6 has 8, 8, 4, 4)
DROP = 0.1  # stochastic depth: rate of the last block, rising linearly from 0
EPSILON = 1e-6  # of the layer norms

Tokens = Float[Tensor, "b n c"]
Size = tuple[int, int]


def tokens(x: Float[Tensor, "b c h w"]) -> Tokens:
    """Positions in rows: a view, of which channels-last maps need no copy anywhere."""
    return x.flatten(2).transpose(1, 2)


def grid(x: Tokens, size: Size) -> Float[Tensor, "b c h w"]:
    """Inverse of `tokens` for a map of (height, width): a channels-last view."""
    return x.transpose(1, 2).view(x.shape[0], x.shape[2], *size)


class PatchEmbed(nn.Module):
    """Overlapping patches: convolution with a kernel beyond its stride, then layer norm over channels."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        kernel = 2 * stride - 1
        self.proj = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(outside, EPSILON)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Tokens, Size]:
        """Tokens, and the (height, width) of their map: ceil(input / stride)."""
        x = self.proj(x)
        return self.norm(tokens(x)), (x.shape[2], x.shape[3])


class Attention(nn.Module):
    """Multi-head self-attention whose keys and values are R x R times fewer (equation 2): O(N^2 / R^2).

    The map is reduced by a convolution of kernel and stride R, then layer norm; rows and columns beyond a multiple of R
    are left out, and a map smaller than R is filled up with zeros.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, EPSILON)

    def forward(self, x: Tokens, size: Size) -> Tokens:
        """Every position's mixture of values."""
        key, value = self.kv(self._reduced(x, size)).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(self._split(self.q(x)), self._split(key), self._split(value))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _reduced(self, x: Tensor, size: Size) -> Tensor:
        if self.reduction == 1:
            return x
        below, right = (max(0, self.reduction - side) for side in size)
        return self.norm(tokens(self.sr(F.pad(grid(x, size), (0, right, 0, below)))))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class MixFFN(nn.Module):
    """Linear layer, depthwise 3x3 convolution, GELU, linear layer (equation 3): its zero padding tells positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * EXPANSION
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tokens, size: Size) -> Tokens:
        """Tokens of the same shape."""
        return self.fc2(F.gelu(tokens(self.dwconv(grid(self.fc1(x), size)))))


class StochasticDepth(nn.Module):
    """While training, zero for an image with probability `rate`, and 1 / (1 - rate) times the branch for the others.

    Draws from torch's global generator of the device, like dropout, so that whoever restores that resumes exactly.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tokens) -> Tokens:
        """The branch, per image as it is drawn."""
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))


class Block(nn.Module):
    """Attention, then Mix-FFN, each after a layer norm and added to its input."""

    def __init__(self, channels: int, heads: int, reduction: int, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, EPSILON)
        self.attn = Attention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, EPSILON)
        self.mlp = MixFFN(channels)
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tokens, size: Size) -> Tokens:
        """Tokens of the same shape; `size` is their map's (height, width)."""
        x = x + self.drop(self.attn(self.norm1(x), size))
        return x + self.drop(self.mlp(self.norm2(x), size))


class MiT(Backbone):
    """Mix Transformer: four stages at strides 4, 8, 16 and 32 for images of any size.

    `width` scales the channels of a head; the heads of the stages stay 1, 2, 5 and 8. Stages end in a layer norm: no
    activation follows, so `pre` and `post` are the same map, in channels-last memory.
    """

    linear = True

    def __init__(self, name: str, *, width: float) -> None:
        super().__init__()
        base, depths = SIZES[name]
        channels = [scaled(base, width) * heads for heads in HEADS]
        rates = (DROP * index / (sum(depths) - 1) for index in range(sum(depths)))
        plan = zip(pairwise([3, *channels]), STRIDES, depths, HEADS, REDUCTIONS, strict=True)
        for k, ((inside, outside), stride, depth, heads, reduction) in enumerate(plan, start=1):
            blocks = [Block(outside, heads, reduction, next(rates)) for _ in range(depth)]
            self.add_module(f"patch_embed{k}", PatchEmbed(inside, outside, stride))
            self.add_module(f"block{k}", nn.ModuleList(blocks))
            self.add_module(f"norm{k}", nn.LayerNorm(outside, EPSILON))
        self.stages = tuple(Map(c, s) for c, s in zip(channels, (4, 8, 16, 32), strict=True))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Stage, ...]:
        """The four stages' normalised maps."""
        stages = []
        for k in range(1, 5):
            embed, blocks, norm = (getattr(self, f"{part}{k}") for part in ("patch_embed", "block", "norm"))
            rows, size = embed(x)
            for block in blocks:
                rows = block(rows, size)
            x = grid(norm(rows), size)
            stages.append(Stage(x, x))
        return tuple(stages)

    def initialise(self) -> None:
        """Linear layers: normal with deviation 0.02, cut at 2; convolutions: Kaiming's fan-out of one group; biases 0.

        The paper says nothing about it and starts from ImageNet weights; this is vision transformers' custom.
        """
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
            elif isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=math.sqrt(2 * part.groups / part.weight[:, 0].numel()))
            if isinstance(part, nn.Linear | nn.Conv2d):
                assert part.bias is not None
                nn.init.zeros_(part.bias)
