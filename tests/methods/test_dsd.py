from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.dsd import DSD, DSDConfig, csd_loss, csd_released_loss, psd_loss, psd_released_loss
from segkd.networks.outputs import Map


def maps(*shapes: tuple[int, ...], seed: int = 0, grad: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad) for shape in shapes]


def test_psd_is_the_textbook_sum_at_the_smallest_size_of_the_four_maps():
    s, t = maps((2, 3, 8, 6), (2, 5, 4, 5), grad=True), maps((2, 2, 9, 4), (2, 7, 5, 7), seed=1)

    def residual(first, second):
        a, b = (
            functional.normalize(functional.interpolate(x.square().sum(1, True), (4, 4), mode="bilinear").flatten(1))
            for x in (first, second)
        )
        return functional.normalize(b - a)

    plain = (residual(*s) - residual(*t)).square().sum(1).mean()
    ours = psd_loss(s, t)
    torch.testing.assert_close(ours, plain)
    for got, want in zip(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s), strict=True):
        torch.testing.assert_close(got, want)


def test_csd_gradient_is_exact_and_sizes_may_differ():
    s, t = maps((2, 4, 3, 5), grad=True)[0], maps((2, 4, 6, 2), seed=1)[0]
    assert torch.autograd.gradcheck(lambda x: csd_loss(x, t, temperature=0.7), (s,))


def test_csd_stays_exact_where_the_student_is_close_to_the_teacher():
    t = maps((1, 19, 40, 40))[0] * 8
    s = (t + 1e-3 * maps((1, 19, 40, 40), seed=1)[0]).float()
    single, double = csd_loss(s, t.float()), csd_loss(s.double(), t.float().double())
    torch.testing.assert_close(single.double(), double, rtol=2e-3, atol=0)


@pytest.mark.parametrize("loss", [psd_loss, psd_released_loss])
def test_psd_is_finite_for_dead_constant_and_single_position_maps(loss):
    shapes = ((2, 3, 4, 4), (2, 5, 4, 4), (2, 2, 4, 4))
    for s in ([torch.zeros(x) for x in shapes], [torch.full(x, 2.0) for x in shapes], [torch.randn(2, 3, 1, 1)] * 3):
        leaves = [x.clone().requires_grad_() for x in s]
        teacher = [x.float() for x in maps(*(tuple(x.shape) for x in s), seed=3)]
        value = loss(leaves, teacher)
        assert value.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, leaves))


@pytest.mark.parametrize("loss", [csd_loss, csd_released_loss])
def test_csd_of_equal_maps_is_zero_with_zero_gradient(loss):
    s = torch.randn(2, 4, 5, 5).requires_grad_()
    value = loss(s, s.detach())
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].abs().max() == 0


@pytest.mark.parametrize(("preset", "psd"), [("paper", 0.1), ("released", 1000)])
def test_presets_choose_weight_maps_and_form(preset, psd, pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    config = DSDConfig(preset=preset)
    assert config.psd == psd
    terms = DSD(config, channels(8), channels(16), CLASSES)(student, teacher, labels, progress)
    if preset == "paper":
        chosen = [[x.stages[1].post, x.stages[2].post, x.stages[3].post, x.embedding] for x in (student, teacher)]
        expected = {"psd": 0.1 * psd_loss(*chosen), "csd": 10 * csd_loss(student.logits, teacher.logits)}
    else:
        chosen = [[x.logits, x.embedding, x.logits] for x in (student, teacher)]
        expected = {
            "psd": 1000 * psd_released_loss(*chosen),
            "csd": 10 * csd_released_loss(student.logits, teacher.logits),
        }
    torch.testing.assert_close(terms, expected)


def test_released_takes_auxiliary_logits_where_there_are_some(pair, progress):
    shape = replace(channels(8), auxiliary=Map(CLASSES, 4))
    student, teacher, labels = pair(channels(8), channels(16))
    method = DSD(DSDConfig(preset="released"), shape, channels(16), CLASSES)
    with_aux = replace(student, auxiliary=torch.randn_like(student.logits))
    assert method(with_aux, teacher, labels, progress)["psd"] != method(student, teacher, labels, progress)["psd"]


def test_released_refuses_maps_of_different_stride():
    with pytest.raises(ConfigError, match="input / 8"):
        DSD(DSDConfig(preset="released"), channels(8), replace(channels(16), auxiliary=Map(CLASSES, 8)), CLASSES)


def test_zero_switches_off_and_idle_temperature_is_refused(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    method = DSD(DSDConfig(csd=0), channels(8), channels(16), CLASSES)
    assert set(method(student, teacher, labels, progress)) == {"psd"}
    with pytest.raises(ValidationError, match="temperature would change nothing"):
        DSDConfig(csd=0, temperature=2)
    warm = DSD(DSDConfig(temperature=1), channels(8), channels(16), CLASSES)(student, teacher, labels, progress)
    cold = DSD(DSDConfig(), channels(8), channels(16), CLASSES)(student, teacher, labels, progress)
    assert warm["csd"] != cold["csd"]
