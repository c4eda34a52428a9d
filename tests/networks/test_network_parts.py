"""Resizing, pyramid pooling, ASPP rates and CBAM against definitions written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import image
from torch.nn import functional as F

from segkd.networks.aspp import ASPP, rates
from segkd.networks.cbam import CBAM
from segkd.networks.pspnet import BINS, pyramid
from segkd.networks.resize import upsample

sizes = st.integers(1, 40)


@settings(max_examples=50, deadline=None)
@given(sizes, sizes, sizes, sizes)
def test_upsample_keeps_corners_and_straight_lines(h: int, w: int, height: int, width: int) -> None:
    def ramp(h: int, w: int) -> torch.Tensor:  # rises by `down` and `right`, which one row or column cannot
        return down * torch.linspace(0, 1, h)[:, None] + right * torch.linspace(0, 1, w)[None]

    down, right = float(h > 1), 2.0 * (w > 1)
    found = upsample(ramp(h, w)[None, None], (height, width))[0, 0]
    torch.testing.assert_close(found, ramp(height, width), rtol=0, atol=1e-5)


def test_upsample_to_the_same_size_is_the_same_map() -> None:
    x = image(1, 2, 5, 7)
    assert upsample(x, (5, 7)) is x


@settings(max_examples=50, deadline=None)
@given(sizes, sizes)
def test_pyramid_is_adaptive_average_pooling_with_its_gradient(h: int, w: int) -> None:
    x, y = image(2, 3, h, w).requires_grad_(), image(2, 3, h, w).requires_grad_()
    found, expected = pyramid(x), [F.adaptive_avg_pool2d(y, n) for n in BINS]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum((k + 1) * one.square().sum() for k, one in enumerate(found)).backward()
    sum((k + 1) * one.square().sum() for k, one in enumerate(expected)).backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_rates_of_the_papers_and_of_tiny_images() -> None:
    assert rates(8, "deep") == (12, 24, 36)
    assert rates(16, "conv7") == (6, 12, 18)
    assert rates(4, "conv3") == (2, 4, 6)


@torch.no_grad()
def test_aspp_is_its_five_branches_projected() -> None:
    torch.manual_seed(0)
    aspp, x = ASPP(6, 4, (1, 2, 3)).eval(), image(2, 6, 9, 11)
    maps = [F.relu(branch(x)) for branch in aspp.branches]
    maps.append(F.interpolate(F.relu(aspp.image(F.adaptive_avg_pool2d(x, 1))), size=(9, 11), mode="bilinear"))
    pre = aspp.project(torch.cat(maps, 1))
    found = aspp(x)
    torch.testing.assert_close(found.pre, pre)
    torch.testing.assert_close(found.post, F.relu(pre))


@torch.no_grad()
def test_cbam_is_its_definition() -> None:
    torch.manual_seed(0)
    cbam, x = CBAM(32).eval(), image(2, 32, 5, 6)
    first, _, second = cbam.channel.mlp

    def mlp(v: torch.Tensor) -> torch.Tensor:
        return F.relu(v @ first.weight.T + first.bias) @ second.weight.T + second.bias

    assert first.weight.shape == (2, 32)
    gate = torch.sigmoid(mlp(x.flatten(2).mean(2)) + mlp(x.flatten(2).max(2).values))
    y = x * gate[..., None, None]
    pooled = torch.stack([y.max(1).values, y.mean(1)], 1)
    expected = y * torch.sigmoid(F.conv2d(pooled, cbam.spatial.conv.weight, padding=3) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(cbam(x), expected)


def test_cbam_has_the_papers_parameters() -> None:
    found = {name: tuple(p.shape) for name, p in CBAM(512).named_parameters()}
    assert found == {
        "channel.mlp.0.weight": (32, 512),
        "channel.mlp.0.bias": (32,),
        "channel.mlp.2.weight": (512, 32),
        "channel.mlp.2.bias": (512,),
        "spatial.conv.weight": (1, 2, 7, 7),
        "spatial.norm.weight": (1,),
        "spatial.norm.bias": (1,),
    }
    assert CBAM(512).spatial.norm.momentum == 0.01


@pytest.mark.parametrize("channels", [1, 3, 15, 16])
def test_cbam_survives_narrow_maps_of_one_pixel(channels: int) -> None:
    cbam, x = CBAM(channels), image(1, channels, 1, 1).requires_grad_()
    cbam(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert cbam.channel.mlp[0].out_features == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_cbam_only_ever_shrinks(seed: int) -> None:
    torch.manual_seed(seed)
    x = image(2, 4, 3, 3, seed=seed)
    found = CBAM(4).eval()(x)
    assert (found.abs() <= x.abs()).all()
    assert (found.sign() == x.sign()).all()
