"""Xception-41: its count, its arrangement, its dilation, its stages, its keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from small_networks import image, network
from torch import Tensor, nn

from segkd.errors import SegkdError
from segkd.networks.xception import SeparableConv, Xception


def count(middle: int) -> int:
    with torch.device("meta"):
        found = Xception(between=True, output_stride=16, width=1.0, middle=middle)
    return sum(parameter.numel() for parameter in found.parameters())


def separable(*channels: int) -> int:
    """Parameters of separable convolutions in a row: 9 C depthwise, C D pointwise, weight and bias of both norms."""
    return sum(9 * c + 2 * c + c * d + 2 * d for c, d in pairwise(channels))


def shortcut(inside: int, outside: int) -> int:
    return inside * outside + 2 * outside


def derived(middle: int) -> int:
    """From figure 4 of the paper, block by block."""
    stem = 27 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    entry = sum(separable(a, b, b, b) + shortcut(a, b) for a, b in ((64, 128), (128, 256), (256, 728)))
    exit_ = separable(728, 728, 1024, 1024) + shortcut(728, 1024) + separable(1024, 1536, 1536, 2048)
    return stem + entry + middle * separable(728, 728, 728, 728) + exit_


@pytest.mark.parametrize(("middle", "published"), [(8, 26.97), (16, 39.92)])
def test_parameters_of_xception_41_and_65(middle: int, published: float) -> None:
    """Derived, and published with 1000 classes for the ports of the authors' weights (timm's table of models)."""
    assert count(middle) == derived(middle)
    assert round((count(middle) + 2048 * 1000 + 1000) / 1e6, 2) == published


def test_41_layers() -> None:
    """Full and depthwise 3x3 convolutions of stem and blocks; 1x1 ones belong to depthwise ones or to identities."""
    backbone = network(backbone="xception41").backbone
    assert len([m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]) == 41


@torch.no_grad()
def test_dilation_computes_what_the_strides_skip() -> None:
    """A trous: at every k-th position the dilated network has the strided one's values, at any size."""
    strided = network(backbone="xception41", output_stride=32).backbone.eval()
    x = image(1, 3, 75, 98)
    for stride in (16, 8):
        dilated = network(backbone="xception41", output_stride=stride).backbone.eval()
        for one, other, a, b in zip(strided(x), dilated(x), strided.stages, dilated.stages, strict=True):
            k = a.stride // b.stride
            torch.testing.assert_close(other.post[..., ::k, ::k], one.post, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "expected"), [(32, [4, 8, 16, 32]), (16, [4, 8, 16, 16]), (8, [4, 8, 8, 8])])
def test_stages(stride: int, expected: list[int]) -> None:
    with torch.device("meta"):
        stages = network(backbone="xception41", output_stride=stride, width=1.0).backbone.stages
    assert [stage.stride for stage in stages] == expected
    assert [stage.channels for stage in stages] == [256, 256, 728, 2048]


def test_dilations_at_output_stride_16_and_8() -> None:
    """The block that carried the stride keeps the dilation before it."""

    def dilations(stride: int) -> list[int]:
        blocks = network(backbone="xception41", output_stride=stride).backbone.blocks
        found = [{m.conv_dw.dilation[0] for m in b.modules() if isinstance(m, SeparableConv)} for b in blocks]
        assert all(len(one) == 1 for one in found)
        return [one.pop() for one in found]

    assert dilations(16) == [1] * 12 + [2]
    assert dilations(8) == [1] * 3 + [2] * 9 + [4]


def test_stages_hold_the_map_before_and_after_its_relu_even_after_the_head_has_run() -> None:
    for stage in network(head="deeplabv3plus", backbone="xception41", width=0.1)(image(2, 3, 64, 64)).stages:
        assert (stage.pre < 0).any()
        assert torch.equal(stage.post, stage.pre.clamp(min=0))


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["xception41", "xception41-released"])
def test_where_the_relus_are(backbone: str) -> None:
    """Before every depthwise convolution but the last block's first; before every 1x1 (paper) or the last block's."""
    net = network(backbone=backbone, width=0.1).backbone
    activated: dict[str, bool] = {}

    def watch(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            activated[name] = bool((inputs[0] >= 0).all())

        net.get_submodule(name).register_forward_pre_hook(hook)

    names = [name for name, _ in net.named_modules() if name.endswith(("conv_dw", "conv_pw"))]
    for name in names:
        watch(name)
    net(image(2, 3, 64, 64))
    between = [name for name in names if name.endswith("conv_pw")]
    linear = {"blocks.12.stack.conv1.conv_dw"}
    linear |= {n for n in between if backbone == "xception41-released" and not n.startswith("blocks.12.")}
    assert {name for name, positive in activated.items() if not positive} == linear
    assert len(activated) == 2 * 39


def test_the_two_arrangements_have_the_same_weights() -> None:
    paper, released = (network(backbone=name).state_dict() for name in ("xception41", "xception41-released"))
    assert list(paper) == list(released)
    assert all(torch.equal(paper[name], released[name]) for name in paper)


def test_keys_of_the_public_port() -> None:
    found = set(network(backbone="xception41").backbone.state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"stem.{k}.conv.weight" for k in (0, 1)} | {f"stem.{k}.bn.{part}" for k in (0, 1) for part in norm}
    for block in range(13):
        for conv in (f"blocks.{block}.stack.conv{k}" for k in (1, 2, 3)):
            expected |= {f"{conv}.conv_{kind}.weight" for kind in ("dw", "pw")}
            expected |= {f"{conv}.bn_{kind}.{part}" for kind in ("dw", "pw") for part in norm}
        if block in (0, 1, 2, 11):
            expected |= {f"blocks.{block}.shortcut.conv.weight", *(f"blocks.{block}.shortcut.bn.{p}" for p in norm)}
    assert found == expected


@torch.no_grad()
def test_low_level_features_are_read_at_stride_4() -> None:
    outputs = network(head="deeplabv3plus", backbone="xception41", output_stride=16).eval()(image(1, 3, 65, 65))
    assert outputs.logits.shape[-2:] == (17, 17)
    assert outputs.head["context"].pre.shape[-2:] == (5, 5)


def test_an_auxiliary_head_is_refused() -> None:
    with pytest.raises((SegkdError, ValueError), match="ResNets only"):
        network(backbone="xception41", auxiliary=True)
