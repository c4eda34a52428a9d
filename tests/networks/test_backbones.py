"""Strides, dilations, stages and activations of the backbones."""

from __future__ import annotations

import pytest
import torch
from small_networks import image, network
from torch import nn

from segkd.networks.parts import scaled, steps


@torch.no_grad()
@pytest.mark.parametrize("stem", ["conv7", "deep", "conv3"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_dilation_computes_what_the_strides_skip(backbone: str, stem: str) -> None:
    """A trous: at every k-th position the dilated network has the strided one's values, at any size."""
    coarse, fine = (16, 4) if stem == "conv3" else (32, 8)
    strided = network(backbone=backbone, stem=stem, output_stride=coarse).backbone.eval()
    dilated = network(backbone=backbone, stem=stem, output_stride=fine).backbone.eval()
    x = image(1, 3, 75, 98)
    for one, other, a, b in zip(strided(x), dilated(x), strided.stages, dilated.stages, strict=True):
        k = a.stride // b.stride
        torch.testing.assert_close(other.post[..., ::k, ::k], one.post, rtol=1e-4, atol=1e-5)
    assert [stage.stride for stage in strided.stages] != [stage.stride for stage in dilated.stages]


def dilations(module: nn.Module) -> list[int]:
    """Dilations of the 3x3 convolutions, in order."""
    return [part.dilation[0] for part in module.modules() if isinstance(part, nn.Conv2d) and part.kernel_size[0] == 3]


def strides(module: nn.Module) -> set[int]:
    return {part.stride[0] for part in module.modules() if isinstance(part, nn.Conv2d)}


def test_first_block_of_a_dilated_stage_keeps_half_the_dilation() -> None:
    backbone = network(backbone="resnet50", stem="deep", output_stride=8).backbone
    assert dilations(backbone.layer3) == [1, 2, 2, 2, 2, 2]
    assert dilations(backbone.layer4) == [2, 4, 4]
    assert strides(backbone.layer3) == strides(backbone.layer4) == {1}


def test_basic_blocks_keep_it_only_in_the_convolution_that_carried_the_stride() -> None:
    backbone = network(backbone="resnet18", output_stride=8).backbone
    assert dilations(backbone.layer3) == [1, 2, 2, 2]
    assert dilations(backbone.layer4) == [2, 4, 4, 4]


@pytest.mark.parametrize(("output_stride", "unit"), [(8, 4), (16, 2), (32, 1)])
def test_multi_grid_multiplies_the_last_stages_dilation(output_stride: int, unit: int) -> None:
    backbone = network(backbone="resnet101", output_stride=output_stride, multi_grid=(1, 2, 4)).backbone
    assert dilations(backbone.layer4) == [unit, 2 * unit, 4 * unit]


def test_mobilenetv2_trades_strides_for_dilation_from_the_first_block_on() -> None:
    backbone = network(backbone="mobilenetv2", output_stride=8).backbone
    assert dilations(backbone.features[1:7]) == [1] * 6
    assert dilations(backbone.features[7:14]) == [2] * 7
    assert dilations(backbone.features[14:]) == [4] * 4
    assert strides(backbone.features[7:]) == {1}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stem": "conv7", "output_stride": 32}, [4, 8, 16, 32]),
        ({"stem": "deep", "output_stride": 16}, [4, 8, 16, 16]),
        ({"stem": "conv7", "output_stride": 8}, [4, 8, 8, 8]),
        ({"stem": "conv3", "output_stride": 16}, [2, 4, 8, 16]),
        ({"stem": "conv3", "output_stride": 8}, [2, 4, 8, 8]),
        ({"stem": "conv3", "output_stride": 4}, [2, 4, 4, 4]),
        ({"backbone": "mobilenetv2", "output_stride": 32}, [4, 8, 16, 32]),
        ({"backbone": "mobilenetv2", "output_stride": 16}, [4, 8, 16, 16]),
        ({"backbone": "mobilenetv2", "output_stride": 8}, [4, 8, 8, 8]),
        ({"backbone": "mobilenetv2", "output_stride": 4, "stem": "conv3"}, [4, 4, 4, 4]),
    ],
)
def test_stage_strides(fields: dict[str, object], expected: list[int]) -> None:
    assert [stage.stride for stage in network(**fields).backbone.stages] == expected


def test_stage_channels_at_full_width() -> None:
    with torch.device("meta"):
        found = {
            name: [stage.channels for stage in network(backbone=name, width=1.0).backbone.stages]
            for name in ("resnet34", "resnet101", "mobilenetv2")
        }
    assert found == {
        "resnet34": [64, 128, 256, 512],
        "resnet101": [256, 512, 1024, 2048],
        "mobilenetv2": [24, 32, 96, 320],
    }


@pytest.mark.parametrize("head", ["deeplabv3plus", "pspnet"])
def test_stages_hold_the_map_before_and_after_its_last_relu_even_after_the_head_has_run(head: str) -> None:
    outputs = network(head=head, auxiliary=True)(image(2, 3, 64, 64))
    for stage in outputs.stages:
        assert (stage.pre < 0).any()
        assert torch.equal(stage.post, stage.pre.clamp(min=0))


def test_linear_bottlenecks_have_one_map() -> None:
    for stage in network(backbone="mobilenetv2")(image(2, 3, 64, 64)).stages:
        assert stage.pre is stage.post
        assert (stage.pre < 0).any()


def test_width_rounds_half_up_and_never_to_nothing() -> None:
    assert [scaled(48, width) for width in (0.01, 0.25, 0.3125, 1, 1.5)] == [1, 12, 15, 48, 72]


def test_steps_tell_stride_dilation_and_total() -> None:
    assert steps((1, 2, 2), start=4, limit=8) == [(1, 1, 1, 4), (2, 1, 1, 8), (1, 1, 2, 8)]
