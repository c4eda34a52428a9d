from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.base import Progress
from segkd.methods.icsd import ICSD, ICSDConfig, icsd_loss, icsd_released_loss, pixel_loss
from segkd.ops.labelled import labelled_cross_entropy


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def textbook(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    def matrix(z):
        log = z.flatten(2).log_softmax(2)
        rows = [
            [(log[:, i].exp() * (log[:, i] - log[:, j])).sum(1) for j in range(z.shape[1])] for i in range(z.shape[1])
        ]
        return functional.normalize(torch.stack([torch.stack(row, 1) for row in rows], 1), dim=2, eps=1e-4)

    return (matrix(s) - matrix(t)).square().mean()


@pytest.mark.parametrize("loss", [icsd_loss, icsd_released_loss])
@pytest.mark.parametrize("size", [None, (7, 11)])
def test_gradient_is_exact_also_through_the_enlargement(loss, size):
    s, t = logits(2, 4, 3, 5).requires_grad_(), logits(2, 4, 6, 2, seed=1)
    t = t if size else logits(2, 4, 3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, t, size=size), (s,))


def test_equals_the_double_loop_over_classes_at_image_size():
    s, t = logits(2, 5, 4, 4), logits(2, 5, 8, 8, seed=1)
    up = [functional.interpolate(x, (15, 13), mode="bilinear", align_corners=True) for x in (s, t)]
    torch.testing.assert_close(icsd_loss(s, t, size=(15, 13)), textbook(*up))
    plain = (
        functional.kl_div(up[0].log_softmax(1), up[1].log_softmax(1), log_target=True, reduction="sum") / up[0].numel()
    )
    torch.testing.assert_close(pixel_loss(s, t, size=(15, 13)), plain)


def test_gradient_of_pixel_loss_is_exact():
    s, t = logits(1, 3, 3, 2).requires_grad_(), logits(1, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: pixel_loss(x, t, size=(4, 5)), (s,))


@pytest.mark.parametrize("scale", [0.05, 3.0, 60.0])
def test_float32_agrees_with_float64_over_many_positions(scale):
    s, t = logits(1, 5, 150, 160, scale=scale), logits(1, 5, 150, 160, seed=1, scale=scale)
    leaves = [s.clone().requires_grad_(), s.float().requires_grad_()]
    values = [icsd_loss(leaves[0], t), icsd_loss(leaves[1], t.float())]
    torch.testing.assert_close(values[1].double(), values[0], rtol=1e-4, atol=0)
    want, got = (torch.autograd.grad(v, x)[0].double() for v, x in zip(values, leaves, strict=True))
    assert (got - want).norm() < 1e-4 * want.norm()


@pytest.mark.parametrize("loss", [icsd_loss, icsd_released_loss])
@pytest.mark.parametrize(
    "s",
    [torch.zeros(1, 4, 3, 3), torch.full((2, 4, 3, 3), 5.0), torch.randn(2, 4, 1, 1), 1e4 * torch.randn(1, 4, 6, 6)],
)
def test_finite_where_maps_are_constant_single_or_saturated(loss, s):
    s = s.clone().requires_grad_()
    value = loss(s, torch.randn_like(s))
    assert value.isfinite()
    assert torch.autograd.grad(value, s)[0].isfinite().all()


@pytest.mark.parametrize("loss", [icsd_loss, icsd_released_loss])
def test_equal_logits_give_zero_and_no_gradient(loss):
    s = torch.randn(2, 4, 5, 5).requires_grad_()
    value = loss(s, s.detach())
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].abs().max() == 0


def test_a_batch_of_equal_images_gives_the_loss_of_one():
    s, t = logits(1, 4, 5, 5), logits(1, 4, 5, 5, seed=1)
    torch.testing.assert_close(icsd_loss(s.repeat(3, 1, 1, 1), t.repeat(3, 1, 1, 1)), icsd_loss(s, t))


def test_two_classes_are_refused_in_preset_paper_only():
    with pytest.raises(ConfigError, match=r"3 or more classes(.|\n)*2 classes"):
        icsd_loss(torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3))
    with pytest.raises(ConfigError, match="2 classes"):
        ICSD(ICSDConfig(), channels(8), channels(16), 2)
    ICSD(ICSDConfig(icsd=0), channels(8), channels(16), 2)
    ICSD(ICSDConfig(preset="released"), channels(8), channels(16), 2)


@pytest.mark.parametrize(
    ("preset", "weight", "loss"), [("paper", 40, icsd_loss), ("released", 9500, icsd_released_loss)]
)
def test_presets_choose_weight_and_form(preset, weight, loss, pair, progress):
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    terms = ICSD(ICSDConfig(preset=preset), channels(8, 8), channels(16, 4), CLASSES)(
        student, teacher, labels, progress
    )
    size = (36, 36)
    expected = {
        "icsd": weight * loss(student.logits, teacher.logits, size=size),
        "kd": 10 * pixel_loss(student.logits, teacher.logits, size=size),
    }
    torch.testing.assert_close(terms, expected)


def test_released_holds_the_student_in_epoch_0_and_divides_its_task_loss():
    paper, released = (ICSD(ICSDConfig(preset=p), channels(8), channels(16), CLASSES) for p in ("paper", "released"))
    first, second = Progress(3, 40, 0, 4), Progress(10, 40, 1, 4)
    assert (paper.student_moves(first), paper.task_weight(first, 6)) == (True, 1)
    assert (released.student_moves(first), released.task_weight(first, 6)) == (False, 1 / 6)
    assert released.student_moves(second)


def test_zero_switches_a_term_off(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    method = ICSD(ICSDConfig(kd=0), channels(8), channels(16), CLASSES)
    assert set(method(student, teacher, labels, progress)) == {"icsd"}


def test_labelled_cross_entropy_is_the_masked_mean_at_label_size():
    z = logits(2, 5, 3, 4).requires_grad_()
    labels = torch.randint(0, 5, (2, 8, 9), generator=torch.Generator().manual_seed(0))
    labels[0, :4] = 255
    up = functional.interpolate(z, (8, 9), mode="bilinear", align_corners=True)
    plain, ours = functional.cross_entropy(up, labels, ignore_index=255), labelled_cross_entropy(z, labels)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, z), torch.autograd.grad(plain, z))
    nothing = labelled_cross_entropy(z, torch.full_like(labels, 255))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, z)[0].abs().max() == 0
