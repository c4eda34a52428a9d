"""Kernels against the plain formula, in value and gradient; blocks are made small so that there are many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segkd.ops import affinity, blocks, divergence, energy, gram, prototypes, relations, squares, unit, vectors

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks.spans, "__defaults__", (7,))
    for module in (affinity, divergence, gram, prototypes, squares):
        monkeypatch.setattr(module, "PRODUCT", 23)
    monkeypatch.setattr(relations, "ROWS", 23)


def agree(ours, plain, *inputs, rtol=1e-9):
    torch.testing.assert_close(ours, plain, rtol=rtol, atol=1e-12)
    got, want = (torch.autograd.grad(x, inputs, retain_graph=True) for x in (ours, plain))
    torch.testing.assert_close(got, want, rtol=rtol, atol=1e-12)


def draw(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


@pytest.mark.parametrize(("over", "dim"), [("channels", 1), ("positions", 2)])
def test_divergence(over, dim):
    s, t = draw(2, 5, 11), draw(2, 5, 11)
    plain = functional.kl_div((s / 2).log_softmax(dim), (t / 2).log_softmax(dim), log_target=True, reduction="sum")
    ours = divergence.softmax_divergence(s, t.detach(), over=over, temperature=2, scale=0.3)
    agree(ours, 0.3 * plain, s)


def test_divergence_after_a_convolution():
    s, w, t = draw(2, 3, 4, 5), draw(7, 3, 1, 1), torch.randn(2, 7, 4, 5, dtype=DOUBLE)
    log_s, log_t = ((x / 2).flatten(2).log_softmax(2) for x in (functional.conv2d(s, w), t))
    plain = functional.kl_div(log_s, log_t, log_target=True, reduction="sum")
    agree(divergence.projected_divergence(s, w, t, temperature=2, scale=0.3), 0.3 * plain, s, w)


def test_squares_after_a_convolution():
    s, w, t = draw(2, 3, 4, 5), draw(7, 3, 1, 1), torch.randn(2, 7, 4, 5, dtype=DOUBLE)
    agree(squares.projected_squares(s, w, t, scale=0.3), 0.3 * (functional.conv2d(s, w) - t).square().sum(), s, w)


@pytest.mark.parametrize("power", [1, 2])
def test_direction_distance(power):
    s, t = draw(2, 5, 3, 4), torch.randn(2, 5, 3, 4, dtype=DOUBLE)
    plain = (functional.normalize(s, dim=1) - functional.normalize(t, dim=1)).abs().pow(power).sum()
    agree(vectors.direction_distance(s, t, power=power, scale=0.3), 0.3 * plain, s)


def test_energy():
    x = draw(2, 5, 3, 4)
    upstream = torch.randn(2, 12, dtype=DOUBLE)
    agree((energy.channel_energy(x) * upstream).sum(), (x.square().sum(1).flatten(1) * upstream).sum(), x)


def test_unit_has_no_gradient_where_there_is_no_direction():
    x = torch.tensor([[3.0, 0.0, 1e-13], [4.0, 0.0, 0.0]], requires_grad=True)
    u = unit.unit(x, dim=0)
    torch.testing.assert_close(u, torch.tensor([[0.6, 0.0, 0.1], [0.8, 0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(u[0].sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([[0.128, 0.0, 0.0], [-0.096, 0.0, 0.0]]))


@pytest.mark.parametrize(("d", "e", "m"), [(3, 3, 40), (3, 5, 40), (8, 8, 6), (8, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_gram_distance_in_every_form(d, e, m, dtype):
    s, t = draw(2, d, m), torch.randn(2, e, m, dtype=DOUBLE)
    plain = 0.3 * (s.transpose(1, 2) @ s - t.transpose(1, 2) @ t).square().sum()
    narrow = s.detach().to(dtype).requires_grad_()
    ours = gram.gram_distance(narrow, t.to(dtype), scale=0.3)
    rtol = 1e-9 if dtype == DOUBLE else 1e-4
    torch.testing.assert_close(ours.double(), plain, rtol=rtol, atol=0)
    (got,), (want,) = torch.autograd.grad(ours, narrow), torch.autograd.grad(plain, s)
    torch.testing.assert_close(got.double(), want, rtol=rtol, atol=rtol * want.abs().max().item())


@pytest.mark.parametrize(("norm", "plain"), [("unit", lambda x: functional.normalize(x, dim=1)), ("none", lambda x: x)])
@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 2), (5, 7)])
def test_gram_distance_pools_and_normalises(norm, plain, window):
    s, t = draw(2, 3, 5, 7), torch.randn(2, 4, 5, 7, dtype=DOUBLE)
    u, v = (plain(functional.max_pool2d(x, window, window, ceil_mode=True)).flatten(2) for x in (s, t))
    want = (u.transpose(1, 2) @ u - v.transpose(1, 2) @ v).square().sum()
    agree(gram.gram_distance(s, t, scale=0.3, norm=norm, window=window), 0.3 * want, s)


@pytest.mark.parametrize("retain", [False, True])
def test_backward_twice_gives_the_same_gradient_where_the_graph_is_kept(retain):
    s, t = draw(2, 3, 12), torch.randn(2, 3, 12, dtype=DOUBLE)
    loss = gram.gram_distance(s, t, scale=1)
    first = torch.autograd.grad(3 * loss, s, retain_graph=retain)[0].clone()
    if retain:
        torch.testing.assert_close(torch.autograd.grad(loss, s)[0], first / 3)
    else:
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(loss, s)


@pytest.mark.parametrize("extra", [0, 4])
@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5])
def test_gram_distance_does_not_cancel_where_the_student_is_near_the_teacher(extra, distance):
    base = functional.normalize(torch.randn(1, 8, 400), dim=1)
    s = (base + distance * torch.randn(1, 8, 400)).requires_grad_()
    t = torch.cat([base, torch.zeros(1, extra, 400)], 1)
    ours = gram.gram_distance(s, t, scale=1)
    exact = s.detach().double().requires_grad_()
    plain = (exact.transpose(1, 2) @ exact - t.transpose(1, 2).double() @ t.double()).square().sum()
    torch.testing.assert_close(ours.double(), plain, rtol=2e-5, atol=0)
    (got,), (want,) = torch.autograd.grad(ours, s), torch.autograd.grad(plain, exact)
    assert (got.double() - want).norm() < 1e-4 * want.norm()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 40), st.integers(0, 9999))
def test_variation_distance_against_a_loop_over_classes(images, classes, positions, seed):
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(images, 4, positions, generator=generator, dtype=DOUBLE).requires_grad_()
    t = torch.randn(images, 6, positions, generator=generator, dtype=DOUBLE)
    labels = torch.randint(0, classes + 1, (images, positions), generator=generator)
    labels[labels == classes] = 255
    plain = torch.zeros((), dtype=DOUBLE)
    for image in range(images):
        for c in range(classes):
            own = labels[image] == c
            if own.any():
                sides = []
                for x in (s[image][:, own], t[image][:, own]):
                    prototype = x.sum(1, keepdim=True) / (x.shape[1] + 1e-6)
                    sides.append(functional.cosine_similarity(x, prototype.expand_as(x), dim=0, eps=1e-8))
                plain = plain + (sides[0] - sides[1]).square().sum()
    ours = prototypes.variation_distance(s, t, labels, classes=classes, epsilon=1e-6, scale=0.3)
    torch.testing.assert_close(ours, 0.3 * plain, rtol=1e-9, atol=1e-12)
    if plain.requires_grad:
        agree(ours, 0.3 * plain, s)


def test_a_dead_feature_and_a_dead_prototype_are_finite():
    s = torch.randn(1, 4, 6, requires_grad=True)
    with torch.no_grad():
        s[0, :, 0] = 0
        s[0, :, 4], s[0, :, 5] = 1, -1  # opposite features: their mean is the zero vector
    labels = torch.tensor([[0, 0, 0, 0, 1, 1]])
    loss = prototypes.variation_distance(s, torch.randn(1, 4, 6), labels, classes=2, epsilon=1e-6, scale=1)
    (gradient,) = torch.autograd.grad(loss, s)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 100


@pytest.mark.parametrize("bound", [10.0, 500.0])
def test_rows_divergence_survives_large_logits(bound):
    s, t = ((torch.rand(5, 9) * 2 - 1) * bound for _ in range(2))
    exact = s.double().requires_grad_()
    plain = functional.kl_div(exact.log_softmax(1), t.double().log_softmax(1), log_target=True, reduction="sum")
    value, slope = relations.rows_divergence(s.clone(), t.clone(), 1.0, bound)
    torch.testing.assert_close(value.double(), plain, rtol=1e-5, atol=0)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(plain, exact)[0], rtol=1e-4, atol=1e-5)


def test_no_gradient_is_formed_where_none_is_wanted():
    s, t = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    assert not divergence.softmax_divergence(s, t, over="channels").requires_grad
    assert not gram.gram_distance(s, t, scale=1).requires_grad


def test_a_second_derivative_is_refused_rather_than_wrong():
    s, t = draw(2, 5, 11), torch.randn(2, 5, 11, dtype=DOUBLE)
    loss = divergence.softmax_divergence(s, t, over="channels")
    (slope,) = torch.autograd.grad(loss.square(), s, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiat"):
        torch.autograd.grad(slope.sum(), s)
