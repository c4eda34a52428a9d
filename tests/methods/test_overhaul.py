from __future__ import annotations

from functools import cache

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError

from segkd.config.network import NetworkConfig
from segkd.errors import ConfigError
from segkd.methods.base import Progress
from segkd.methods.overhaul import DIVIDERS, Margin, Overhaul, OverhaulConfig, overhaul_loss
from segkd.networks.build import Network, build


@cache
def network(width: float) -> Network:
    torch.manual_seed(0)
    config = NetworkConfig(head="deeplabv3plus", backbone="resnet18", stem="conv3", output_stride=8, width=width)
    return build(config, CLASSES).train()


def textbook(s: torch.Tensor, t: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """The three cases of the released code."""
    m = margin[None, :, None, None]
    silent = (s - m).square() * ((s > m) & (t <= m))
    between = (s - t).square() * ((s > t) & (t > m) & (t <= 0))
    return (silent + between + (s - t).square() * (t > 0)).sum() / len(s)


def test_equals_the_three_cases_and_their_gradient():
    s, t = (torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(2))
    s.requires_grad_()
    margin = torch.tensor([-0.1, -0.5, -2.0], dtype=torch.float64)
    ours, plain = overhaul_loss(s, t, margin), textbook(s, t, margin)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


def test_a_student_that_is_the_teacher_costs_what_the_margin_clips_only():
    t = torch.randn(2, 3, 4, 4)
    s = t.clone().requires_grad_()
    value = overhaul_loss(s, t, torch.full((3,), -100.0))
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].abs().max() == 0
    assert overhaul_loss(s, t, torch.zeros(3)).item() == 0  # silent responses below 0 are as good as the margin


def test_margin_is_the_mean_of_all_negative_responses_seen():
    first, second = torch.randn(2, 3, 4, 4), torch.randn(1, 3, 4, 4)
    first[:, 2], second[:, 2] = 1.0, 2.0
    margin = Margin(3).train()
    margin(first)
    got = margin(second)
    everything = torch.cat([first, second])
    want = torch.stack([x[x < 0].mean() for x in everything[:, :2].transpose(0, 1)])
    torch.testing.assert_close(got[:2].float(), want)
    assert got[2] == 0
    restored = Margin(3).eval()
    restored.load_state_dict(margin.state_dict())
    torch.testing.assert_close(restored(first), got, rtol=0, atol=0)


def test_terms_of_all_six_maps_are_divided_and_weighted():
    student, teacher = network(0.125), network(0.25)
    method = Overhaul(OverhaulConfig(weight=2.0), student.channels, teacher.channels, CLASSES).train()
    images = torch.randn(2, 3, 32, 32)
    s, t = student(images), teacher(images)
    progress = Progress(0, 4, 0, 2)
    terms = method(s, t, torch.zeros(2, 32, 32).long(), progress)
    assert set(terms) == set(DIVIDERS)
    method.eval()  # margins stay
    method.connectors.train()
    for name, divider in DIVIDERS.items():
        ours, theirs = (x.head[name].pre if name in x.head else x.stages[int(name[-1]) - 1].pre for x in (s, t))
        loss = overhaul_loss(method.connectors[name](ours), theirs, method.margins[name](theirs))
        torch.testing.assert_close(terms[name], 2 / divider * loss)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_maps_that_both_have_are_compared_and_asked_for_ones_must_exist(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    terms = Overhaul(OverhaulConfig(), channels(8), channels(16), CLASSES)(student, teacher, labels, progress)
    assert set(terms) == {"stage1", "stage2", "stage3", "stage4"}
    with pytest.raises(ConfigError, match="decoder"):
        Overhaul(OverhaulConfig(maps=("stage4", "decoder")), channels(8), channels(16), CLASSES)
    with pytest.raises(ConfigError, match=r"stage2(.|\n)*input / 8"):
        Overhaul(OverhaulConfig(), channels(8, 8), channels(16, 4), CLASSES)
    only = Overhaul(OverhaulConfig(maps=("stage1",)), channels(8, 8), channels(16, 4), CLASSES)
    assert only.names == ("stage1",)


def test_connectors_may_go_first():
    for first, moves in ((True, False), (False, True)):
        method = Overhaul(OverhaulConfig(connectors_first=first), channels(8), channels(16), CLASSES)
        assert method.student_moves(Progress(0, 4, 0, 2)) is moves
        assert method.student_moves(Progress(2, 4, 1, 2))


def test_zero_switches_off_and_idle_keys_are_refused(pair, progress):
    student, teacher, labels = pair(channels(8), channels(16))
    method = Overhaul(OverhaulConfig(weight=0), channels(8), channels(16), CLASSES)
    assert method(student, teacher, labels, progress) == {}
    with pytest.raises(ValidationError, match="connectors_first would change nothing"):
        OverhaulConfig(weight=0, connectors_first=True)
