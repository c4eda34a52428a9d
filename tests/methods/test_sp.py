from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.sp import SP, SPConfig, sp_loss


def test_is_the_textbook_form_with_its_gradient_for_maps_of_any_size():
    s, t = torch.randn(3, 4, 3, 2, dtype=torch.float64), torch.randn(3, 5, 6, 4, dtype=torch.float64)
    s.requires_grad_()
    u, v = (functional.normalize(x.flatten(1) @ x.flatten(1).T, dim=1) for x in (s, t))
    plain, ours = (u - v).square().sum() / 9, sp_loss(s, t)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


def test_float32_is_exact_over_millions_of_elements():
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(3, 64, 100, 100, generator=generator), torch.rand(3, 128, 100, 100, generator=generator)
    torch.testing.assert_close(sp_loss(s, t).double(), sp_loss(s.double(), t.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("s", [torch.zeros(2, 3, 2, 2), torch.randn(1, 3, 2, 2), torch.full((2, 3, 1, 1), 4.0)])
def test_dead_maps_and_single_images_are_finite(s):
    s = s.clone().requires_grad_()
    value = sp_loss(s, torch.randn(len(s), 2, 3, 3))
    assert value.isfinite()
    assert torch.autograd.grad(value, s)[0].isfinite().all()
    assert len(s) > 1 or value == 0


def test_equal_maps_give_zero_and_different_batches_are_refused():
    s = torch.randn(3, 4, 5, 5).requires_grad_()
    value = sp_loss(s, s.detach())
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].abs().max() == 0
    with pytest.raises(ConfigError, match="3 and 2 images"):
        sp_loss(s, s[:2])


def test_method_weights_its_term_and_zero_switches_it_off(pair, progress):
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    terms, off = (
        SP(SPConfig(weight=w), channels(8, 8), channels(16, 4), CLASSES)(student, teacher, labels, progress)
        for w in (30, 0)
    )
    torch.testing.assert_close(terms, {"similarity": 30 * sp_loss(student.embedding, teacher.embedding)})
    assert off == {}
