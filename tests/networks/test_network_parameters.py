"""Parameter counts against torchvision's documentation and the papers' READMEs; nothing is allocated (meta device)."""

from __future__ import annotations

import pytest
import torch

from segkd.config.network import NetworkConfig
from segkd.networks.build import Network, build


def meta(classes: int = 21, **fields: object) -> Network:
    with torch.device("meta"):
        return build(NetworkConfig.model_validate(fields), classes)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


SLIM = {"head_channels": 128}
TORCHVISION = {  # documented total, and what classifies 1000 classes in it
    "resnet18": (11_689_512, 512 * 1000 + 1000),
    "resnet34": (21_797_672, 512 * 1000 + 1000),
    "resnet50": (25_557_032, 2048 * 1000 + 1000),
    "resnet101": (44_549_160, 2048 * 1000 + 1000),
    "mobilenetv2": (3_504_872, 1280 * 1000 + 1000 + 320 * 1280 + 2 * 1280),  # and the 1280-channel convolution
}


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_backbones_count_as_torchvision_without_its_classifier(backbone: str) -> None:
    total, classifier = TORCHVISION[backbone]
    assert count(meta(head="fcn", backbone=backbone).backbone) == total - classifier


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride_changes_no_count(output_stride: int) -> None:
    assert count(meta(head="fcn", backbone="resnet50", output_stride=output_stride).backbone) == 23_508_032


@pytest.mark.parametrize(
    ("backbone", "grid", "exact", "millions"),
    [
        ("resnet101", (1, 2, 4), 59_344_309, 59.3),  # published: 59.3
        ("resnet18", None, 16_608_181, 16.6),  # published: 16.6
        ("mobilenetv2", None, 5_816_053, 5.8),  # published: 5.9
    ],
)
def test_deeplabv3plus_of_aicsd_and_attnfd(backbone: str, grid: object, exact: int, millions: float) -> None:
    found = count(meta(head="deeplabv3plus", backbone=backbone, output_stride=16, multi_grid=grid))
    assert found == exact
    assert round(found / 1e6, 1) == millions


def test_deep_stem_costs_its_three_convolutions_and_a_wider_first_block() -> None:
    plain = count(meta(head="fcn", backbone="resnet18").backbone)
    deep = count(meta(head="fcn", backbone="resnet18", stem="deep").backbone)
    stem = 27 * 64 + 128 + 9 * 64 * 64 + 128 + 9 * 64 * 128 + 256
    first_block = 9 * 64 * 64 + 128 * 64 + 128  # 64 more input channels, and a projection of the identity
    assert deep - plain == stem - (147 * 64 + 128) + first_block


def test_head_channels_and_width_scale_the_head() -> None:
    slim = meta(head="deeplabv3", backbone="resnet18", head_channels=128)
    assert slim.channels.embedding.channels == 128
    assert meta(head="deeplabv3", backbone="resnet18", width=0.25).channels.embedding.channels == 64


@pytest.mark.parametrize(
    ("fields", "exact", "millions"),
    [
        ({"head": "deeplabv3", "backbone": "resnet101", "stem": "deep", "auxiliary": True}, 61_118_950, 61.1),
        ({"head": "deeplabv3", "backbone": "resnet18", "stem": "deep", "auxiliary": True, **SLIM}, 13_607_974, 13.6),
        ({"head": "deeplabv3", "backbone": "mobilenetv2", **SLIM}, 3_233_171, 3.2),
        ({"head": "pspnet", "backbone": "resnet18", "stem": "deep", "auxiliary": True, **SLIM}, 12_919_334, 12.9),
    ],
)
def test_networks_of_the_cirkd_family_on_19_classes(fields: dict[str, object], exact: int, millions: float) -> None:
    """CIRKD's tables, to the published digits, auxiliary head included."""
    assert count(meta(19, **fields)) == exact
    assert round(exact / 1e6, 1) == millions


def test_the_auxiliary_head_has_a_quarter_of_stage_threes_channels() -> None:
    auxiliary = meta(19, head="fcn", backbone="resnet50", auxiliary=True).auxiliary
    assert auxiliary is not None
    assert count(auxiliary) == 9 * 1024 * 256 + 2 * 256 + 256 * 19 + 19


@pytest.mark.parametrize(
    ("head", "rates"),
    [
        ("deeplabv3", [0.5, 0.1]),
        ("deeplabv3plus", [0.5, 0.5, 0.1]),
        ("pspnet", [0.1]),
        ("fcn", [0.1]),
        ("deeplabv3-no-aspp", [0.1]),
        ("segformer", [0.1]),
    ],
)
def test_dropout_of_the_papers(head: str, rates: list[float]) -> None:
    network = meta(head=head, backbone="resnet18")
    assert [part.p for part in network.modules() if isinstance(part, torch.nn.Dropout)] == rates
