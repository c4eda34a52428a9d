from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.ka import KA, Autoencoder, KAConfig, adaptation_loss, affinity_loss, sparsity_loss
from segkd.networks.outputs import Outputs

CONFIG = KAConfig(latent=6)


def made(student_stride: int = 8, teacher_stride: int = 4, config: KAConfig = CONFIG) -> tuple[KA, Autoencoder]:
    student, teacher = channels(8, student_stride), channels(16, teacher_stride)
    auto = KA.pretraining(config, student, teacher, CLASSES)
    method = KA(config, student, teacher, CLASSES)
    method.adopt(auto)
    return method, auto


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("size", [(9, 9), (17, 33), (8, 13), (5, 5)])
def test_autoencoder_returns_the_input_size_and_the_student_size(stride, size):
    _, auto = made(stride, 4)
    code, decoded = auto.translate(torch.randn(2, 16, *size))
    factor = stride // 4
    assert decoded.shape == (2, 16, *size)
    assert code.shape == (2, 6, *(-(-side // factor) for side in size))


def test_strides_that_no_encoder_bridges_are_refused():
    with pytest.raises(ConfigError, match=r"input / 4, teacher: input / 8, ratio 0\.5"):
        made(4, 8)


def test_autoencoder_learns_and_terms_add_up(pair):
    torch.manual_seed(0)
    _, auto = made()
    _, teacher, _ = pair(channels(8, 8), channels(16, 4))
    optimiser = torch.optim.SGD(auto.parameters(), auto.lr, auto.momentum, weight_decay=auto.weight_decay)
    losses = []
    for _ in range(15):
        terms = auto(teacher)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        losses.append(terms["reconstruction"].item())
    assert losses[-1] < 0.9 * losses[0]
    code, _ = auto.translate(teacher.embedding)
    assert set(terms) == {"reconstruction", "sparsity"}
    torch.testing.assert_close(sparsity_loss(code), code.abs().sum((1, 2, 3)).mean())


def test_encoder_is_adopted_frozen_and_stays_in_eval_mode(pair, progress):
    method, auto = made()
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    auto.train()
    auto(teacher)
    method.adopt(auto)
    method.train()
    before = {name: value.clone() for name, value in method.encoder.state_dict().items()}
    sum(method(student, teacher, labels, progress).values()).backward()
    assert not method.encoder.training
    assert method.feature_adapter.training
    for name, value in auto.encoder.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(method.encoder.state_dict()[name], before[name])
    assert all(not p.requires_grad and p.grad is None for p in method.encoder.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_forward_before_adoption_is_an_error(pair, progress):
    method = KA(CONFIG, channels(8, 8), channels(16, 4), CLASSES)
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    with pytest.raises(RuntimeError, match="adopt"):
        method(student, teacher, labels, progress)


def test_a_weight_of_zero_removes_the_term_and_its_adapter(pair, progress):
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    method, _ = made(config=KAConfig(latent=6, affinity=0))
    assert set(method(student, teacher, labels, progress)) == {"adaptation"}
    assert not hasattr(method, "affinity_adapter")


def test_losses_equal_the_textbook_form_and_its_gradient():
    s = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    t = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    u, v = functional.normalize(s, dim=1), functional.normalize(t, dim=1)
    rows = torch.einsum("bchw,bcij->bhwij", u, u) - torch.einsum("bchw,bcij->bhwij", v, v)
    plain = rows.flatten(3).norm(dim=3).mean() / 35**0.5
    ours = affinity_loss(s, t)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s, retain_graph=True))
    plain, ours = (u - v).abs().sum(1).mean(), adaptation_loss(s, t)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


def test_equal_maps_give_zero_and_no_gradient():
    s = torch.randn(1, 6, 5, 7, requires_grad=True)
    for loss in (affinity_loss, adaptation_loss):
        value = loss(s, s.detach())
        assert value.item() == 0
        assert torch.autograd.grad(value, s)[0].abs().max() == 0


def test_outputs_are_only_read_where_needs_says(pair, progress):
    method, _ = made()
    student, teacher, labels = pair(channels(8, 8), channels(16, 4))
    empty = torch.empty(0)
    bare = (Outputs(empty, x.embedding, ()) for x in (student, teacher))
    full = method(student, teacher, labels, progress)
    for name, value in method(*bare, labels, progress).items():
        torch.testing.assert_close(value, full[name], rtol=0, atol=0)
