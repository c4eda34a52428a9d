"""Operations of one forward pass against published counts. All of these count a multiplication with its addition as one
(MACs), of convolutions, linear layers and attention's two products; ours is half of PyTorch's FLOP counter.
"""

from __future__ import annotations

import pytest
import torch

from segkd.config.network import NetworkConfig
from segkd.evaluation.cost import flops, parameters
from segkd.networks.build import Network, build
from segkd.networks.xception import Xception


def meta(classes: int, **fields: object) -> Network:
    with torch.device("meta"):
        return build(NetworkConfig.model_validate(fields), classes)


def macs(network: torch.nn.Module, height: int, width: int) -> float:
    """Thousands of millions."""
    return flops(network, (height, width)) / 2e9


def segformer(size: str, channels: int) -> Network:
    return meta(150, head="segformer", backbone=f"mit-{size}", output_stride=32, head_channels=channels)


@pytest.mark.parametrize(
    ("size", "channels", "exact", "millions", "operations"),
    [("b0", 256, 3_752_694, 3.8, 8.4), ("b4", 768, 64_108_374, 64.1, 95.7)],
)
def test_segformer_on_ade20k(size: str, channels: int, exact: int, millions: float, operations: float) -> None:
    """Table 2 of the paper: 150 classes, 512 x 512, "GFLOPs" that are MACs.

    Within 0.2 %: the published ones hold element-wise operations (norms, resizing) of 0.1 thousand millions, too.
    """
    network = segformer(size, channels)
    assert parameters(network) == exact
    assert round(exact / 1e6, 1) == millions
    assert macs(network, 512, 512) == pytest.approx(operations, rel=2e-3)


def test_attention_is_counted_and_costs_what_its_reduction_leaves() -> None:
    """Of 8.39 thousand millions in SegFormer-B0 the products Q K' and A V, with N / R^2 keys, are 1.04."""
    stages = list(zip((128**2, 64**2, 32**2, 16**2), (8, 4, 2, 1), (32, 64, 160, 256), strict=True))
    products = sum(2 * n * (n // r**2) * c for n, r, c in stages)
    linear = sum(2 * n * c * c + 2 * (n // r**2) * c * c for n, r, c in stages)  # queries and output; keys and values
    reducing = sum(n * c * c for n, r, c in stages if r > 1)
    network = segformer("b0", 256)
    whole = macs(network, 512, 512)
    for name, module in network.named_modules():
        if name.endswith(".attn"):
            module.forward = lambda x, size: x  # type: ignore[method-assign]
    blocks = 2
    assert whole - macs(network, 512, 512) == pytest.approx(blocks * (products + linear + reducing) / 1e9, rel=1e-9)
    assert round(blocks * products / 1e9, 2) == 1.04


def test_kas_student_is_mobilenetv2_papers_network_without_aspp() -> None:
    """Its table 7: 21 classes, output stride 16, 2.11 M parameters, 2.75 B multiply-adds at 513 x 513.

    Parameters to the published digits. Multiply-adds within 0.5 %: 2.741 of convolutions, where the paper does not say
    which other operations it counts.
    """
    network = meta(21, head="deeplabv3-no-aspp", backbone="mobilenetv2", output_stride=16)
    backbone = 3_504_872 - (1280 * 1000 + 1000) - (320 * 1280 + 2 * 1280)  # torchvision's, up to 320 channels
    head = 2 * (320 * 256 + 2 * 256) + (2 * 256 * 256 + 2 * 256) + (256 * 21 + 21)
    assert parameters(network) == backbone + head == 2_113_557
    assert macs(network, 513, 513) == pytest.approx(2.75, rel=5e-3)


@pytest.mark.parametrize(("middle", "activations", "published"), [(8, 39.9, 9.3), (16, 52.5, 14.0)])
def test_xception_at_299_pixels(middle: int, activations: float, published: float) -> None:
    """timm's model cards of the ports of the authors' weights; they add two operations per normalised value.

    activations: outputs of convolutions in millions, from the same cards.
    """
    with torch.device("meta"):
        backbone = Xception(between=True, output_stride=32, width=1.0, middle=middle)
    classifier = 2048 * 1000 / 1e9
    assert round(macs(backbone, 299, 299) + classifier + 2e-3 * activations, 1) == published


def test_output_strides_of_xception_cost_no_parameter_but_operations() -> None:
    with torch.device("meta"):
        found = [Xception(between=True, output_stride=stride, width=1.0) for stride in (32, 16, 8)]
    assert len({parameters(one) for one in found}) == 1
    costs = [macs(one, 512, 512) for one in found]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1] / 2
