from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.ickd import ICKD, ICKDConfig, ickd_loss


def test_is_the_textbook_form_with_its_gradient_for_maps_of_any_size():
    s, t = torch.randn(2, 4, 3, 2, dtype=torch.float64), torch.randn(2, 4, 6, 4, dtype=torch.float64)
    s.requires_grad_()
    u, v = (functional.normalize(x.flatten(2) @ x.flatten(2).mT, dim=2) for x in (s, t))
    plain, ours = (u - v).square().sum() / 8, ickd_loss(s, t)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


@pytest.mark.parametrize("s", [torch.zeros(2, 3, 2, 2), torch.randn(1, 3, 1, 1), torch.eye(3).view(1, 3, 3, 1)])
def test_dead_maps_are_finite(s):
    s = s.clone().requires_grad_()
    value = ickd_loss(s, torch.randn_like(s))
    assert value.isfinite()
    assert torch.autograd.grad(value, s)[0].isfinite().all()


def test_equal_maps_give_zero_and_different_channels_are_refused():
    s = torch.randn(3, 4, 5, 5).requires_grad_()
    value = ickd_loss(s, s.detach())
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].abs().max() == 0
    with pytest.raises(ConfigError, match="equal channels"):
        ickd_loss(s, s[:, :3])


def test_terms_are_weighted_and_switched_off(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    method = ICKD(ICKDConfig(feature=2, logits=3), channels(8), channels(16), CLASSES)
    expected = {
        "feature": 2 * ickd_loss(method.connector(student.embedding), teacher.embedding),
        "logits": 3 * ickd_loss(student.logits, teacher.logits),
    }
    torch.testing.assert_close(method(student, teacher, labels, progress), expected)
    only = ICKD(ICKDConfig(feature=0, logits=1), channels(8), channels(16), CLASSES)
    assert set(only(student, teacher, labels, progress)) == {"logits"}
    assert list(only.parameters()) == []
