"""Networks narrow enough to run in milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from segkd.config.network import NetworkConfig
from segkd.networks.build import Network, build

HEADS = ("deeplabv3", "deeplabv3plus", "pspnet", "fcn", "deeplabv3-no-aspp", "segformer")


def config(**fields: Any) -> NetworkConfig:
    given: dict[str, Any] = {"head": "deeplabv3", "backbone": "resnet18", "width": 0.05}
    return NetworkConfig(**(given | fields))


def network(classes: int = 5, seed: int = 0, **fields: Any) -> Network:
    torch.manual_seed(seed)
    return build(config(**fields), classes)


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
