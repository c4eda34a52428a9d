from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.kd import KD, KDConfig, enlarged_kd_loss, kd_loss


def test_equals_torch_kl_div_in_both_reductions():
    s, t = torch.randn(2, 7, 5, 6, dtype=torch.float64), torch.randn(2, 7, 5, 6, dtype=torch.float64)
    full = functional.kl_div((s / 3).log_softmax(1), (t / 3).log_softmax(1), log_target=True, reduction="sum")
    torch.testing.assert_close(kd_loss(s, t, temperature=3), full * 9 / (2 * 5 * 6))
    torch.testing.assert_close(kd_loss(s, t, temperature=3, reduction="element"), full / s.numel())


def test_gradient_is_exact_and_the_teacher_gets_none():
    s = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    t = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kd_loss(x, t.detach(), temperature=2), (s,))
    kd_loss(s, t).backward()
    assert t.grad is None


def test_weight_follows_the_reduction_unless_given():
    assert KDConfig().weight == 1
    assert KDConfig(reduction="element").weight == 10
    assert KDConfig(reduction="element", weight=3).weight == 3


def test_released_preset_is_refused():
    with pytest.raises(ValidationError, match="paper"):
        KDConfig(preset="released")


def test_terms_are_weighted_and_zero_switches_off(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    one, three, off = (
        KD(KDConfig(weight=w), channels(8), channels(16), CLASSES)(student, teacher, labels, progress)
        for w in (1, 3, 0)
    )
    torch.testing.assert_close(three["kd"], 3 * one["kd"])
    assert off == {}


def test_maps_of_different_stride_are_refused_with_both_strides():
    with pytest.raises(ConfigError, match=r"input / 8.*input / 4(.|\n)*resize: teacher"):
        KD(KDConfig(), channels(8, 8), channels(16, 4), CLASSES)


def test_resize_brings_student_logits_to_the_teachers_map(pair, progress):
    method = KD(KDConfig(resize="teacher"), channels(8, 8), channels(16, 4), CLASSES)
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    up = functional.interpolate(student.logits, (9, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method(student, teacher, labels, progress)["kd"], kd_loss(up, teacher.logits))


@pytest.mark.parametrize("reduction", ["pixel", "element"])
def test_resize_to_the_image_compares_enlarged_logits_of_any_two_strides(pair, progress, reduction):
    config = KDConfig(resize="image", reduction=reduction, temperature=3, weight=1)
    method = KD(config, channels(8, 8), channels(16, 4), CLASSES)
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    s, t = (
        functional.interpolate(x.logits, labels.shape[-2:], mode="bilinear", align_corners=True)
        for x in (student, teacher)
    )
    wanted = kd_loss(s, t, temperature=3, reduction=reduction)
    torch.testing.assert_close(method(student, teacher, labels, progress)["kd"], wanted)


def test_enlarged_logits_of_different_classes_are_refused():
    with pytest.raises(ConfigError, match=r"student \(1, 2, 3, 3\), teacher \(1, 4, 3, 3\)"):
        enlarged_kd_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3), size=(6, 6))


def test_resize_that_would_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="remove `resize`"):
        KD(KDConfig(resize="teacher"), channels(8), channels(16), CLASSES)
