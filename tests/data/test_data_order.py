"""Order: a pure function of (seed, epoch, index)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkd.data.order import batches_per_epoch, order, places, position, sample_rng

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 60)


@pytest.mark.fault("P6", "any seed, epoch and size of a split (hypothesis)")
@given(seeds, st.integers(0, 1000), sizes)
def test_an_epoch_shows_every_image_once(seed, epoch, n):
    assert sorted(order(seed, epoch, n)) == list(range(n))


@pytest.mark.fault("P6", "any batch size (hypothesis)")
@given(seeds, st.integers(1, 20), sizes)
def test_batches_of_an_epoch_are_disjoint_and_follow_its_order(seed, batch, n):
    steps = batches_per_epoch(batch, n)
    chosen = [index for step in range(steps) for index, _ in places(seed, step, batch, n)]
    assert chosen[:n] == order(seed, 0, n)[: len(chosen[:n])].tolist()
    assert len(chosen) == steps * batch


@pytest.mark.fault("P2", "a start at any iteration (hypothesis)")
@given(st.integers(0, 10_000), st.integers(1, 20), sizes)
def test_position_counts_full_batches_only(iteration, batch, n):
    epoch, cursor = position(iteration, batch, n)
    assert epoch * max(1, n // batch) * batch + cursor == iteration * batch
    assert cursor + batch <= max(n, batch)


@pytest.mark.fault("P3", "a split smaller than a batch")
def test_a_split_smaller_than_a_batch_is_repeated_with_new_draws():
    chosen = places(0, 0, 5, 2)
    first, second = order(0, 0, 2).tolist()
    assert chosen == [(first, 0), (second, 0), (first, 1), (second, 1), (first, 2)]
    assert sample_rng(0, 0, first, 0).random() != sample_rng(0, 0, first, 1).random()


def test_order_differs_between_seeds_and_epochs():
    assert order(0, 0, 50).tolist() != order(0, 1, 50).tolist() != order(1, 0, 50).tolist()


def test_draws_depend_on_seed_epoch_and_index():
    draws = {sample_rng(*place).random() for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(draws) == 4
    assert sample_rng(3, 2, 1).random() == sample_rng(3, 2, 1).random()


def test_nothing_to_order_is_refused():
    with pytest.raises(ValueError, match="n 0"):
        batches_per_epoch(4, 0)


def test_order_is_frozen():
    """A change here changes every published run."""
    assert order(0, 0, 8).tolist() == [5, 3, 0, 1, 2, 4, 7, 6]
    assert sample_rng(0, 0, 0).random(3).tolist() == [0.6771968569751019, 0.2429867485428212, 0.6117637963218119]
