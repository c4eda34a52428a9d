from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.af_dcd import AfDCD, AfDCDConfig, centre_masked, omni_contrast_loss
from segkd.methods.kd import kd_loss
from segkd.methods.mgd import mgd_loss


def textbook(s: torch.Tensor, t: torch.Tensor, groups: int, patch: int, temperature: float) -> torch.Tensor:
    """Vector by vector, for maps that are whole patches."""
    images, channels_, height, width = s.shape
    size, total = channels_ // groups, 0.0
    for image in range(images):
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                where = [(y, x) for y in range(top, top + patch) for x in range(left, left + patch)]
                for y, x in where:
                    for g in range(groups):
                        part = slice(g * size, (g + 1) * size)
                        ours = s[image, part, y, x]
                        right = -(ours - t[image, part, y, x]).abs().sum() / temperature
                        wrong = [
                            -(ours - t[image, h * size : (h + 1) * size, j, i]).abs().sum() / temperature
                            for j, i in where
                            for h in range(groups)
                            if h != g
                        ]
                        total = total - right + torch.stack([right, *wrong]).logsumexp(0)
    return total / (images * height * width)


def test_contrast_equals_the_loops_and_their_gradient():
    s, t = (torch.randn(2, 4, 4, 4, dtype=torch.float64) for _ in range(2))
    s.requires_grad_()
    options = {"groups": 2, "patch": 2, "temperature": 0.7}
    ours, plain = omni_contrast_loss(s, t, pool=1, **options), textbook(s, t, **options)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))
    pooled = [functional.max_pool2d(x, 2) for x in (s, t)]
    torch.testing.assert_close(omni_contrast_loss(s, t, pool=2, **options), textbook(*pooled, **options))


def test_positions_beyond_whole_patches_are_left_out():
    s, t = torch.randn(1, 4, 5, 7).requires_grad_(), torch.randn(1, 4, 5, 7)
    ours = omni_contrast_loss(s, t, groups=2, patch=2, pool=1)
    torch.testing.assert_close(ours, omni_contrast_loss(s[..., :4, :6], t[..., :4, :6], groups=2, patch=2, pool=1))
    gradient = torch.autograd.grad(ours, s)[0]
    assert gradient[..., 4:, :].abs().max() == 0
    assert gradient[..., :4, :6].abs().max() > 0


@pytest.mark.parametrize("s", [torch.zeros(1, 4, 3, 3), torch.randn(1, 4, 1, 1), 1e4 * torch.randn(2, 4, 9, 6)])
def test_dead_single_and_far_maps_are_finite(s):
    s = s.clone().requires_grad_()
    value = omni_contrast_loss(s, torch.randn_like(s), groups=2)
    assert value.isfinite()
    assert torch.autograd.grad(value, s)[0].isfinite().all()


def test_the_centre_is_the_middle_third_of_rows_and_columns():
    masked = centre_masked(torch.ones(1, 2, 9, 6))
    assert masked.sum() == 2 * (54 - 6)
    assert masked[:, :, 3:6, 2:4].abs().max() == 0


@pytest.mark.parametrize("projector", ["enhanced", "plain"])
def test_terms_are_weighted(projector, pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    config = AfDCDConfig(feature=2, contrast=3, kd=4, masking="centre", projector=projector, groups=4)
    method = AfDCD(config, channels(8), channels(16), CLASSES)
    terms = method(student, teacher, labels, progress)
    mimicked = method.projector(centre_masked(method.align(student.stages[3].post)))
    wanted = teacher.stages[3].post
    expected = {
        "feature": 2 * mgd_loss(mimicked, wanted),
        "contrast": 3 * omni_contrast_loss(mimicked, wanted, groups=4),
        "kd": 4 * kd_loss(student.logits, teacher.logits),
    }
    torch.testing.assert_close(terms, expected)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_masks_are_random_by_default(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    method = AfDCD(AfDCDConfig(), channels(8), channels(16), CLASSES)
    first, second = (method(student, teacher, labels, progress)["feature"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"feature": 0, "contrast": 0, "projector": "plain"}, "projector"),
        ({"masking": "centre", "mask": 0.5}, "mask"),
        ({"contrast": 0, "temperature": 1}, "temperature"),
    ],
)
def test_keys_that_would_change_nothing_are_refused(options, key):
    with pytest.raises(ValidationError, match=f"{key} would change nothing"):
        AfDCDConfig(**options)


def test_groups_must_divide_the_teachers_channels():
    with pytest.raises(ConfigError, match="128 channels"):
        AfDCD(AfDCDConfig(groups=3), channels(8), channels(16), CLASSES)
    AfDCD(AfDCDConfig(contrast=0), channels(8), channels(15), CLASSES)
