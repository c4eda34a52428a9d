from __future__ import annotations

import pytest
import torch
from method_outputs import CLASSES, channels
from pydantic import ValidationError
from torch.nn import functional

from segkd.methods.base import Progress
from segkd.methods.cirkd import CIRKD, CIRKDConfig, Memory, memory_loss, minibatch_loss

SMALL = {"pixel_memory": 40, "region_memory": 10, "pixel_contrast": 50, "region_contrast": 20}


def plain_minibatch(s, t, tau, images):
    u, v = (functional.normalize(x.flatten(2), dim=1) for x in (s, t))
    return torch.stack(
        [
            functional.kl_div(
                (u[i].T @ u[j] / tau).log_softmax(1),
                (v[i].T @ v[j] / tau).log_softmax(1),
                log_target=True,
                reduction="batchmean",
            )
            for i in images
            for j in images
        ]
    ).mean()


@pytest.mark.parametrize(
    ("group", "parts"), [(2, [[0, 1], [2, 3], [4]]), (None, [range(5)]), (1, [[i] for i in range(5)])]
)
@pytest.mark.parametrize("tau", [0.1, 0.01])
def test_minibatch_is_the_mean_over_groups_of_the_textbook_form(group, parts, tau):
    s = torch.randn(5, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    t = torch.randn(5, 7, 3, 5, dtype=torch.float64)
    plain = torch.stack([plain_minibatch(s, t, tau, list(part)) for part in parts]).mean()
    ours = minibatch_loss(s, t, temperature=tau, group_size=group)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(plain, s))


def test_pooling_halves_nothing_but_the_map():
    s, t = torch.randn(2, 4, 9, 9), torch.randn(2, 4, 9, 9)
    small = (functional.avg_pool2d(x, 4, ceil_mode=True) for x in (s, t))
    torch.testing.assert_close(minibatch_loss(s, t, pool=4), minibatch_loss(*small))


@pytest.mark.parametrize("tau", [0.1, 0.01])
def test_unwritten_slots_are_as_if_they_were_not_there(tau):
    s = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    t = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 8, 10))
    labels[0, :4] = 255
    contrast = functional.normalize(torch.randn(9, 6, dtype=torch.float64), dim=1)
    written = torch.tensor([True, False, True, True, False, False, True, True, True])
    masked = memory_loss(s, t, labels, contrast, written, temperature=tau)
    dropped = memory_loss(s, t, labels, contrast[written], temperature=tau)
    torch.testing.assert_close(masked, dropped)
    torch.testing.assert_close(torch.autograd.grad(masked, s), torch.autograd.grad(dropped, s))


@pytest.mark.parametrize("tau", [0.1, 0.01])
def test_nothing_labelled_and_nothing_remembered_give_zero_and_zero_gradient(tau):
    s, t = torch.randn(2, 6, 4, 5, requires_grad=True), torch.randn(2, 6, 4, 5)
    labels, nothing = torch.zeros(2, 8, 10, dtype=torch.int64), torch.full((2, 8, 10), 255)
    contrast = functional.normalize(torch.randn(9, 6), dim=1)
    cases = [(nothing, contrast, None), (labels, contrast[:0], None), (labels, contrast, torch.zeros(9).bool())]
    for label, rows, written in cases:
        loss = memory_loss(s, t, label, rows, written, temperature=tau)
        assert loss.item() == 0
        assert torch.equal(torch.autograd.grad(loss, s)[0], torch.zeros_like(s))


def bank(**options) -> Memory:
    return Memory(CIRKDConfig(**(SMALL | options)), 3, CLASSES)


def test_released_memory_stores_pixels_of_any_class_and_starts_with_unit_vectors():
    labels = torch.ones(1, 4, 4, dtype=torch.int64)
    labels[0, 0] = 0  # the first row, and so the first four positions in raster order
    teacher = torch.zeros(1, 3, 4, 4)
    teacher[:, 0, 0], teacher[:, 1, 1:] = 1, 1  # direction 0 on class 0, direction 1 on class 1
    kept = {}
    for preset in ("paper", "released"):
        memory = bank(preset=preset)
        norms = memory.pixel.entries.norm(dim=2)
        assert torch.allclose(norms, torch.full_like(norms, float(preset == "released")))
        memory.update(teacher, labels)
        kept[preset] = memory.pixel.entries[1, : int(memory.pixel.pointer[1])]
    assert len(kept["paper"]) == len(kept["released"]) == 12
    assert bool((kept["paper"][:, 1] == 1).all())
    assert int((kept["released"][:, 0] == 1).sum()) == 4  # the first 12 positions hold four of class 0


def test_only_the_picked_number_of_pixels_per_class_is_remembered():
    memory = bank(per_class=3)
    labels = torch.randint(0, 3, (2, 9, 9))
    labels[1, :, :4] = 255
    memory.update(torch.randn(2, 3, 9, 9), labels)
    assert memory.pixel.filled.tolist() == [6, 6, 6, 0, 0]
    assert memory.region.filled.tolist() == [2, 2, 2, 0, 0]


def test_memory_is_filled_before_the_loss_and_same_seed_same_memory(pair):
    student, teacher, labels = pair(channels(8), channels(16))
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        method = CIRKD(CIRKDConfig(**SMALL), channels(8), channels(16), CLASSES)
        for iteration in range(3):
            terms = method(student, teacher, labels, Progress(iteration, 10, 0, 1))
        assert min(term.item() for term in terms.values()) > 0
        results.append((terms, method.state_dict()))
    assert set(terms) == {"kd", "minibatch", "pixel", "region"}
    for name in terms:
        assert torch.equal(results[0][0][name], results[1][0][name])
    assert torch.equal(results[0][1]["memory.pixel.entries"], results[1][1]["memory.pixel.entries"])


def test_state_restores_the_draws_and_the_memory(pair):
    student, teacher, labels = pair(channels(8), channels(16))
    first = CIRKD(CIRKDConfig(**SMALL), channels(8), channels(16), CLASSES)
    first(student, teacher, labels, Progress(0, 10, 0, 1))
    second = CIRKD(CIRKDConfig(**SMALL), channels(8), channels(16), CLASSES)
    second.load_state_dict(first.state_dict())
    one, two = (method(student, teacher, labels, Progress(1, 10, 0, 1)) for method in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_keys_that_change_nothing_are_refused():
    for options in ({"minibatch": 0, "group_size": 4}, {"pixel": 0, "per_class": 2}, {"region": 0, "region_memory": 9}):
        with pytest.raises(ValidationError, match="would change nothing"):
            CIRKDConfig(**options)
    with pytest.raises(ValidationError, match="memory terms"):
        CIRKDConfig(preset="released", pixel=0, region=0)


def test_terms_without_memory_build_no_memory(pair, progress):
    method = CIRKD(CIRKDConfig(pixel=0, region=0), channels(8), channels(16), CLASSES)
    assert not list(method.buffers())
    assert set(method(*pair(channels(8), channels(16)), progress)) == {"kd", "minibatch"}
