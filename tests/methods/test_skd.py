from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.methods.adversarial import Discriminator, critic_loss, gradient_penalty
from segkd.methods.kd import kd_loss
from segkd.methods.skd import SKD, SKDConfig, pairwise_loss, pixelwise_released_loss


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (12, 12), (45, 45), (64, 128), (65, 65)])
def test_discriminator_scores_maps_of_any_size(size):
    scores = Discriminator(3)(torch.randn(2, 3, *size))
    assert scores.shape[0] == 2
    assert scores.shape[1] == (5 if size == (64, 128) else 1)


def test_pooling_window_follows_the_map():
    s, t = torch.randn(1, 4, 7, 9), torch.randn(1, 6, 7, 9)
    pooled = [functional.max_pool2d(x, (3, 4), (3, 4), ceil_mode=True).flatten(2)[0] for x in (s, t)]
    a, b = (functional.normalize(x, dim=0).T @ functional.normalize(x, dim=0) for x in pooled)
    torch.testing.assert_close(pairwise_loss(s, t), (a - b).square().mean())


def test_released_pixel_term_has_the_gradient_of_kd_times_the_batch():
    s, t = torch.randn(3, 4, 5, 5, requires_grad=True), torch.randn(3, 4, 5, 5)
    ours, plain = (torch.autograd.grad(f(s, t), s)[0] for f in (pixelwise_released_loss, kd_loss))
    torch.testing.assert_close(ours, 3 * plain)


def test_presets_and_forms_choose_terms_and_weights(pair, progress):
    shape = channels(8), channels(16)
    student, teacher, labels = pair(*shape)
    off = {"adversarial": 0, "pairwise": 0}
    paper, released = (
        SKD(SKDConfig(preset=p, **off), *shape, CLASSES)(student, teacher, labels, progress)["pixel"]
        for p in ("paper", "released")
    )
    torch.testing.assert_close(paper, 10 * kd_loss(student.logits, teacher.logits))
    torch.testing.assert_close(released, 10 * pixelwise_released_loss(student.logits, teacher.logits))
    assert (SKDConfig().pairwise, SKDConfig(form="cirkd").pairwise) == (0.5, 10)


def test_critic_trains_the_discriminator_alone_and_learns_to_tell_the_two_apart(pair, progress):
    torch.manual_seed(0)
    shape = channels(8), channels(16)
    method = SKD(SKDConfig(), *shape, CLASSES)
    student, teacher, labels = pair(*shape, batch=2)
    (own,) = method.own_optimisers()
    assert {id(p) for p in own.parameters} == {id(p) for p in method.parameters()}
    optimiser = torch.optim.Adam(own.parameters, own.lr, own.betas)
    history = []
    for _ in range(8):
        terms = method.critic(student, teacher, labels, progress)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        history.append(terms["discriminator"].item())
    assert set(terms) == {"discriminator", "penalty"}
    assert history[-1] < history[0] - 0.01
    assert student.logits.grad is None


def test_penalty_of_a_linear_critic_is_known():
    weight = torch.randn(3 * 4 * 4)
    s, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight, s, t, torch.rand(2, 1, 1, 1))
    torch.testing.assert_close(penalty, (weight.norm() - 1) ** 2)


def test_hinge_game_has_no_penalty(pair, progress):
    shape = channels(8), channels(16)
    method = SKD(SKDConfig(game="hinge"), *shape, CLASSES)
    assert set(method.critic(*pair(*shape), progress)) == {"discriminator"}
    assert critic_loss(torch.tensor([-2.0]), torch.tensor([3.0]), "hinge") == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"adversarial": 0, "critic_lr": 1e-3}, "critic_lr"),
        ({"game": "hinge", "penalty": 5}, "penalty"),
        ({"pairwise": 0, "scale": 0.25}, "scale"),
        ({"form": "cirkd", "scale": 0.25}, "scale"),
        ({"preset": "released", "pixel": 0}, "pixel"),
        ({"weight": 1}, "weight"),
    ],
)
def test_keys_that_change_nothing_are_refused(options, word):
    with pytest.raises(ValidationError, match=word):
        SKDConfig(**options)


def test_without_a_term_there_is_no_discriminator(pair, progress):
    shape = channels(8), channels(16)
    method = SKD(SKDConfig(adversarial=0), *shape, CLASSES)
    assert list(method.parameters()) == []
    assert list(method.own_optimisers()) == []
    assert method.critic(*pair(*shape), progress) == {}
