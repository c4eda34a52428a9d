from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.ops.memory import Ring, choose, region_means


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values)[None, :, None]


def test_ring_wraps_by_modulo_and_keeps_the_newest():
    ring = Ring(1, 4, 1)
    ring.write(rows(1, 2, 3), torch.tensor([3]))
    ring.write(rows(4, 5, 9), torch.tensor([2]))
    assert ring.entries.flatten().tolist() == [5, 2, 3, 4]
    assert (ring.pointer.item(), ring.filled.item()) == (1, 4)


def test_released_ring_writes_the_last_slots_and_starts_again():
    ring = Ring(1, 4, 1, "reset")
    ring.write(rows(1, 2, 3), torch.tensor([3]))
    ring.write(rows(4, 5, 9), torch.tensor([2]))
    assert ring.entries.flatten().tolist() == [1, 2, 4, 5]
    assert ring.pointer.item() == 0


def test_classes_without_rows_are_left_alone():
    ring = Ring(2, 3, 1)
    ring.write(torch.tensor([[[1.0], [2.0]], [[7.0], [8.0]]]), torch.tensor([2, 0]))
    assert ring.entries[1].abs().sum() == 0
    assert ring.filled.tolist() == [2, 0]


def test_drawn_slots_come_from_the_fullest_class_and_say_who_wrote_them():
    ring = Ring(2, 50, 1)
    ring.write(torch.arange(1.0, 11)[None, :, None].expand(2, -1, -1).contiguous(), torch.tensor([10, 4]))
    drawn, written = ring.draw(8)
    assert drawn.shape == (16, 1)
    assert written[:8].all()
    assert len(set(drawn[:8].flatten().tolist())) == 8
    assert torch.equal(written[8:], drawn[8:, 0] > 0)
    assert torch.equal(drawn[8:][written[8:]], drawn[:8][written[8:]])
    assert ring.draw(30)[1].sum() == 14
    assert ring.draw(500)[0].shape == (100, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from(["own", "first"]),
    st.data(),
)
def test_chosen_positions_are_different_and_of_the_class_or_among_the_first(images, n, classes, count, pick, data):
    values = data.draw(st.lists(st.sampled_from([*range(classes), 255]), min_size=images * n, max_size=images * n))
    labels = torch.tensor(values).view(images, n)
    positions, numbers = choose(labels, classes, count, pick)
    for image in range(images):
        for c in range(classes):
            own = (labels[image] == c).nonzero().flatten().tolist()
            assert int(numbers[image, c]) == min(len(own), count)
            picked = positions[image, c, : int(numbers[image, c])].tolist()
            assert len(set(picked)) == len(picked)
            assert set(picked) <= set(own if pick == "own" else range(len(own)))


def test_every_pixel_is_as_likely_as_any_other():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[0, 1, 0, 0, 1, 0, 0, 0]])
    hits = torch.zeros(8)
    for _ in range(600):
        positions, _ = choose(labels, 2, 2, "own", generator)
        hits[positions[0, 0]] += 1
    assert (hits[[0, 2, 3, 5, 6, 7]] - 200).abs().max() < 60
    assert hits[[1, 4]].sum() == 0


def test_region_is_the_direction_of_the_mean():
    unit = torch.nn.functional.normalize(torch.randn(2, 3, 6), dim=1)
    labels = torch.tensor([[0, 0, 1, 255, 1, 1], [2, 2, 2, 2, 2, 255]])
    means, present = region_means(unit, labels, 3)
    assert present.tolist() == [[True, True, False], [False, False, True]]
    want = unit[0][:, [2, 4, 5]].mean(1)
    torch.testing.assert_close(means[0, 1], want / want.norm())
    assert means[0, 2].abs().sum() == 0
