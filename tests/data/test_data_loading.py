"""Batches: equal whatever the workers and the starting point; errors name the sample."""

from __future__ import annotations

import pickle
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import process
from made_data import folder, ids, picture, prepared, recipe

from segkd.config.recipe import Recipe, Scale
from segkd.data.loading import batches
from segkd.data.order import places
from segkd.data.prepared import Prepared, Split
from segkd.errors import DataError

RECIPE = recipe((10, 14), batch=2, scale=Scale(low=0.5, high=2.0))


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    place = tmp_path_factory.mktemp("loading")
    return Prepared(prepared(folder(place / "files", {"train": 5, "val": 1}), place)).split("train")


def made(split, recipe: Recipe = RECIPE, **options):
    return list(batches(split, recipe, **{"seed": 3, "start": 0, "stop": 7, **options}))


def same(one, other) -> bool:
    return one.ids == other.ids and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("images", "labels", "boxes")
    )


@pytest.mark.fault("P6", "another number of loader workers")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_never_change_a_batch(split, workers):
    alone, helped = made(split), made(split, workers=workers)
    assert len(alone) == len(helped) == 7
    assert all(map(same, alone, helped))


@pytest.mark.fault("P2", "a start in mid-epoch")
@pytest.mark.parametrize("start", [1, 2, 5])
def test_starting_later_gives_the_same_batches(split, start):
    assert all(map(same, made(split)[start:], made(split, start=start)))


def test_a_batch_says_what_it_is(split):
    batch = made(split)[5]
    assert batch.images.shape == (2, 3, 10, 14) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.shape == (2, 10, 14) and batch.labels.dtype == torch.uint8
    assert batch.boxes.shape == (2, 4) and batch.boxes.dtype == torch.int64
    assert (batch.iteration, batch.epoch) == (5, 2)
    assert batch.ids == tuple(split.ids[index] for index, _ in places(3, 5, 2, 5))


def test_another_seed_gives_other_batches(split):
    assert not any(map(same, made(split), made(split, seed=4)))


def test_the_global_generators_are_left_alone(split):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    made(split, workers=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_repeated_image_is_drawn_anew(split):
    config = recipe((10, 14), batch=10, scale=Scale(low=0.5, high=2.0))
    batch = made(split, config, stop=1)[0]
    first, again = batch.ids.index(split.ids[0]), len(split) + batch.ids[len(split) :].index(split.ids[0])
    assert not torch.equal(batch.images[first], batch.images[again])


@dataclass
class Faulty:
    """A split whose sample "c" cannot be read, or is not there until `gate` opens."""

    gate: threading.Event | None = None
    folder: Path = Path("nowhere")
    name: str = "train"
    ids: tuple[str, ...] = ("a", "b", "c", "d")
    hours: float = 0.01

    def __len__(self) -> int:
        return 4

    def image(self, i: int) -> np.ndarray:
        if i == 2 and self.gate is None:
            raise OSError("input/output error")
        if i == 2 and self.gate is not None:
            self.gate.wait(3600 * self.hours)
        return picture(i)

    def label(self, i: int) -> np.ndarray:
        return ids(i)


@pytest.mark.fault("P3", "a sample that cannot be loaded")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_sample_is_named(workers):
    with pytest.raises(DataError, match=r"Sample 'c'[\s\S]*input/output error"):
        made(Faulty(), workers=workers)


@pytest.mark.fault("P3", "a sample that does not come")
def test_a_hanging_sample_is_named():
    gate = threading.Event()
    try:
        with pytest.raises(DataError, match=r"Sample 'c'[\s\S]*no batch within 0.2 s"):
            made(Faulty(gate), workers=1, timeout=0.2)
    finally:
        gate.set()


@pytest.mark.fault("P3", "a sample that never comes: the process ends all the same")
def test_a_hanging_sample_does_not_keep_the_process():
    left = process(_wait_in_vain)
    left.start()
    left.join(30)
    ended = left.exitcode
    left.kill()
    assert ended == DataError.exit_code


def _wait_in_vain():
    try:
        made(Faulty(threading.Event(), hours=1), workers=1, timeout=0.2)
    except DataError as error:
        sys.exit(error.exit_code)


def test_leaving_early_stops_the_workers(split):
    stream = batches(split, RECIPE, seed=0, start=0, stop=1000, workers=2)
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith("segkd-data"):
            thread.join(5)
    assert not any(thread.name.startswith("segkd-data") for thread in threading.enumerate())


@pytest.mark.fault("P3", "an empty split")
def test_an_empty_split_is_refused(split):
    empty = Split("train", split.folder, [], np.zeros((0, 2), np.int64), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="nothing to train on"):
        made(empty)


def test_a_split_travels_without_its_pixels(split):
    split.image(0)
    assert len(pickle.dumps(split)) < 2000
    assert np.array_equal(pickle.loads(pickle.dumps(split)).image(1), split.image(1))
