"""Bilinear interpolation by two matrix products is F.interpolate, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from segkd.networks.resize import by_products, by_products_transposed, interpolation

SIDES = st.one_of(st.integers(1, 9), st.integers(1, 160))
SIZES = st.tuples(SIDES, SIDES)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(x: Tensor, gradient: Tensor, aligned: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(output, gradient) of F.interpolate and of the products."""
    size = (gradient.shape[2], gradient.shape[3])
    outputs = (
        functional.interpolate(x, size=size, mode="bilinear", align_corners=aligned),
        by_products(x, size, align_corners=aligned),
    )
    one, other = ((y.detach(), torch.autograd.grad(y, x, gradient)[0]) for y in outputs)
    return one, other


@settings(max_examples=120, deadline=None)
@given(small=SIZES, large=SIZES, aligned=st.booleans(), last=st.booleans())
@example(small=(64, 128), large=(512, 1024), aligned=True, last=False)
@example(small=(64, 128), large=(512, 1024), aligned=False, last=True)
@example(small=(1, 1), large=(5, 7), aligned=True, last=False)
@example(small=(9, 7), large=(1, 1), aligned=True, last=False)
@example(small=(9, 7), large=(1, 1), aligned=False, last=False)
@example(small=(132, 1), large=(127, 160), aligned=False, last=False)
def test_within_1e_6_of_the_library_forward_and_backward(
    small: tuple[int, int], large: tuple[int, int], aligned: bool, last: bool
) -> None:
    x, gradient = drawn(1, 2, *small), drawn(1, 2, *large, seed=1)
    if last:
        x, gradient = (one.contiguous(memory_format=torch.channels_last) for one in (x, gradient))
    (y, slope), (mine, my_slope) = both(x.requires_grad_(), gradient, aligned)
    assert (y - mine).abs().max() <= 1e-6 * x.abs().max()
    # a sum of n terms is as exact as n and their sizes allow: theirs adds one after the other
    terms = by_products_transposed(gradient.abs(), small, align_corners=aligned)
    assert ((slope - my_slope).abs() <= 1e-6 * terms + 1e-7).all()


@given(small=SIZES, large=SIZES, aligned=st.booleans())
@settings(max_examples=40, deadline=None)
def test_in_float64_they_are_one_function(small: tuple[int, int], large: tuple[int, int], aligned: bool) -> None:
    x, gradient = (drawn(1, 1, *size, dtype=torch.float64) for size in (small, large))
    (y, slope), (mine, my_slope) = both(x.requires_grad_(), gradient, aligned)
    torch.testing.assert_close(mine, y, rtol=0, atol=1e-11)
    torch.testing.assert_close(my_slope, slope, rtol=1e-10, atol=1e-9)


@given(small=SIZES, large=SIZES, aligned=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_transposed_operator_is_the_gradient(small: tuple[int, int], large: tuple[int, int], aligned: bool) -> None:
    x, gradient = drawn(1, 2, *small).requires_grad_(), drawn(1, 2, *large)
    slope = torch.autograd.grad(by_products(x, large, align_corners=aligned), x, gradient)[0]
    transposed = by_products_transposed(gradient, small, align_corners=aligned)
    torch.testing.assert_close(transposed, slope, rtol=1e-5, atol=1e-5 * max(large))


@given(into=SIDES, out=SIDES, aligned=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_output_pixel_is_a_mean_of_at_most_two(into: int, out: int, aligned: bool) -> None:
    weights = interpolation(into, out, torch.zeros(1), aligned)
    assert weights.shape == (out, into) and bool((weights >= 0).all())
    assert int((weights > 0).sum(1).max()) <= 2
    torch.testing.assert_close(weights.sum(1), torch.ones(out), rtol=0, atol=1e-6)


def test_bfloat16_is_interpolated_in_float32_also_under_autocast() -> None:
    x = drawn(1, 2, 5, 6).bfloat16()
    want = functional.interpolate(x.float(), size=(21, 19), mode="bilinear", align_corners=True).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = by_products(x, (21, 19), align_corners=True)
        wide = by_products(x.float(), (21, 19), align_corners=True)
    assert found.dtype == torch.bfloat16 and wide.dtype == torch.float32
    torch.testing.assert_close(found, want, rtol=2**-7, atol=0)
    assert torch.equal(wide.bfloat16(), found)


@pytest.mark.parametrize("aligned", [True, False])
def test_second_derivatives_exist(aligned: bool) -> None:
    x = drawn(1, 1, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda one: by_products(one, (5, 3), align_corners=aligned), (x,))
