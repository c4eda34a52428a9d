from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError

from segkd.errors import ConfigError
from segkd.methods.mgd import MGD, MGDConfig, mgd_loss, randomly_masked


def test_loss_is_the_sum_of_squares_per_image_without_gradient_to_the_teacher():
    s, t = torch.randn(2, 3, 4, 5).requires_grad_(), torch.randn(2, 3, 4, 5).requires_grad_()
    value = mgd_loss(s, t)
    torch.testing.assert_close(value, ((s - t) ** 2).sum((1, 2, 3)).mean())
    value.backward()
    assert t.grad is None
    assert mgd_loss(s, s).item() == 0


def test_masking_zeroes_that_share_of_positions_over_all_channels():
    torch.manual_seed(0)
    masked = randomly_masked(torch.ones(4, 3, 50, 50), 0.75)
    assert torch.equal(masked[:, 0], masked[:, 2])
    assert masked.mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(randomly_masked(torch.ones(1, 1, 9, 9), 0), torch.ones(1, 1, 9, 9))


def test_method_masks_aligns_and_generates(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    method = MGD(MGDConfig(weight=2, mask=0.5), channels(8), channels(16), CLASSES)
    torch.manual_seed(3)
    terms = method(student, teacher, labels, progress)
    torch.manual_seed(3)
    masked = randomly_masked(method.align(student.stages[3].post), 0.5)
    torch.testing.assert_close(terms, {"generation": 2 * mgd_loss(method.generator(masked), teacher.stages[3].post)})
    terms["generation"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_equal_channels_need_no_alignment_and_zero_switches_off(pair, progress):
    method = MGD(MGDConfig(), channels(8), channels(8), CLASSES)
    assert list(method.align.parameters()) == []
    student, teacher, labels = pair(channels(8), channels(8))
    assert MGD(MGDConfig(weight=0), channels(8), channels(8), CLASSES)(student, teacher, labels, progress) == {}
    with pytest.raises(ValidationError, match="mask would change nothing"):
        MGDConfig(weight=0, mask=0.5)
    with pytest.raises(ConfigError, match="input / 8"):
        MGD(MGDConfig(), channels(8, 8), channels(16, 4), CLASSES)
