"""What every network returns, and what it says about itself before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


class Stage(NamedTuple):
    """One intermediate map before and after its last activation, both (B, C, h, w)."""

    pre: Tensor
    post: Tensor


class Map(NamedTuple):
    """Channels of a map and its stride: input pixels per step."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Outputs:
    """Everything a loss may read; every map at its own stride.

    logits: (B, classes, h, w) before upsampling; embedding: (B, d, h, w), the head's last map before the classifier;
    stages: the backbone's four stages; auxiliary: (B, classes, h, w) or None; head: named maps inside the head
    ("context" = output of ASPP or pyramid pooling, "decoder" = DeepLabV3+'s decoder); attention: CBAM-refined maps
    ("stage4", "context", "decoder") of networks with `attention: cbam`.
    """

    logits: Tensor
    embedding: Tensor
    stages: tuple[Stage, ...]
    auxiliary: Tensor | None = None
    head: Mapping[str, Stage] = field(default_factory=dict)
    attention: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Channels:
    """The same fields as Outputs, as (channels, stride), known without running the network."""

    logits: Map
    embedding: Map
    stages: tuple[Map, ...]
    auxiliary: Map | None = None
    head: Mapping[str, Map] = field(default_factory=dict)
    attention: Mapping[str, Map] = field(default_factory=dict)
