from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError

from segkd.errors import ConfigError
from segkd.methods.dist import DIST, DISTConfig, dist_loss
from segkd.networks.outputs import Map

inter_class_loss, intra_class_loss = partial(dist_loss, intra=0), partial(dist_loss, inter=0)
LOSSES = [inter_class_loss, intra_class_loss]


def textbook(loss, s: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    p, q = ((x / temperature).softmax(1).transpose(0, 1).flatten(1) for x in (s, t))
    if loss is inter_class_loss:
        p, q = p.T, q.T
    return temperature**2 * (
        1 - torch.stack([torch.corrcoef(torch.stack(pq))[0, 1] for pq in zip(p, q, strict=True)]).mean()
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_is_one_minus_pearsons_correlation_with_its_gradient(loss, temperature):
    s, t = (torch.randn(2, 4, 3, 2, dtype=torch.float64) for _ in range(2))
    s.requires_grad_()
    ours, plain = loss(s, t, temperature=temperature), textbook(loss, s, t, temperature)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_logits_give_zero_and_no_gradient_and_nothing_cancels_near_it(loss):
    s = torch.randn(2, 4, 5, 5).requires_grad_()
    value = loss(s, s.detach())
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].abs().max() < 1e-12
    t = s.detach() + 1e-3 * torch.randn_like(s)
    torch.testing.assert_close(loss(s, t).double(), loss(s.double(), t.double()), rtol=1e-3, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("s", [torch.zeros(2, 7, 40, 40), torch.full((1, 3, 4, 4), 2.0), torch.randn(1, 3, 1, 1)])
def test_what_is_constant_correlates_with_nothing_and_gets_no_wild_gradient(loss, s):
    s = s.clone().requires_grad_()
    value = loss(s, torch.randn_like(s))
    gradient = torch.autograd.grad(value, s)[0]
    assert value.isfinite()
    assert gradient.abs().max() < 10
    if s.numel() > 3:
        torch.testing.assert_close(value, torch.tensor(1.0))
        assert gradient.abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_equal_images_gives_the_loss_of_one(loss):
    s, t = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(loss(s.repeat(3, 1, 1, 1), t.repeat(3, 1, 1, 1)), loss(s, t))


def test_terms_weights_and_auxiliary_logits(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    shapes = [replace(shape, auxiliary=Map(CLASSES, 4)) for shape in (channels(8), channels(16))]
    outputs = [replace(x, auxiliary=torch.randn_like(x.logits)) for x in (student, teacher)]
    terms = DIST(DISTConfig(inter=2, intra=3, auxiliary=0.5), *shapes, CLASSES)(*outputs, labels, progress)
    logits, aux = [student.logits, teacher.logits], [x.auxiliary for x in outputs]
    expected = {"relations": 2 * inter_class_loss(*logits) + 3 * intra_class_loss(*logits)}
    expected["auxiliary"] = 0.5 * (2 * inter_class_loss(*aux) + 3 * intra_class_loss(*aux))
    torch.testing.assert_close(terms, expected)
    plain = DIST(DISTConfig(intra=0), channels(8), channels(16), CLASSES)(student, teacher, labels, progress)
    torch.testing.assert_close(plain, {"relations": inter_class_loss(*logits)})
    off = DIST(DISTConfig(inter=0, intra=0), channels(8), channels(16), CLASSES)
    assert off(student, teacher, labels, progress) == {}


def test_keys_that_would_change_nothing_are_refused():
    with pytest.raises(ConfigError, match="auxiliary"):
        DIST(DISTConfig(auxiliary=0.4), channels(8), channels(16), CLASSES)
    with pytest.raises(ValidationError, match="temperature would change nothing"):
        DISTConfig(inter=0, intra=0, temperature=2)
    with pytest.raises(ConfigError, match="input / 8"):
        DIST(DISTConfig(), channels(8, 8), channels(16, 4), CLASSES)
