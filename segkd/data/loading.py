"""Batches of augmented crops, from any iteration on; the number of workers never changes one.

Workers are threads: prepared data need no decoding, and copying, resizing and blurring release the interpreter's lock.
So no process can die, run out of /dev/shm or outlive a killed run, and torch's global generator is never touched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from segkd.config.recipe import Recipe
from segkd.data.augmentation import Sample, augment
from segkd.data.order import places, position, sample_rng
from segkd.data.prepared import Split
from segkd.data.threads import Threads
from segkd.errors import DataError, explain

AHEAD = 2  # batches per worker that are made before they are asked for


class Batch(NamedTuple):
    """Crops of a batch, or one process's part; ids: of the whole batch, so that all processes know them.

    boxes: top, left, bottom, right of the picture in each crop; 255 in labels = ignored.

    Bytes, so that little travels to a GPU; images are channels-last. Losses take labels as int64.
    """

    images: UInt8[Tensor, "b 3 h w"]
    labels: UInt8[Tensor, "b h w"]
    boxes: Int64[Tensor, "b 4"]
    ids: tuple[str, ...]
    iteration: int
    epoch: int


def batches(
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    start: int,
    stop: int,
    workers: int = 0,
    timeout: float = 300.0,
    pin: bool = False,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of the iterations start, ..., stop - 1.

    workers: threads beside this one; timeout: seconds to wait for a batch from them; pin: in memory that a GPU copies
    from by itself; part: (number, count), the crops of one of `count` processes: batch / count of them.

    DataError names the sample that cannot be loaded or does not come.
    """
    if len(split) == 0:
        raise DataError(
            explain(
                "There is nothing to train on.",
                expected="at least one image",
                found="an empty split",
                where=f"{split.folder}, split {split.name!r}",
                fix="add images to the split and prepare the data again",
            )
        )
    maker = _Maker(split, recipe, seed, pin, part)
    wanted = range(start, stop)
    return _ahead(maker, wanted, workers, timeout) if workers else map(maker.make, wanted)


class _Maker:
    """Makes the batch of any iteration; `doing` holds the sample that each unfinished one is at."""

    def __init__(self, split: Split, recipe: Recipe, seed: int, pin: bool, part: tuple[int, int]) -> None:
        self.split, self.recipe, self.seed, self.pin = split, recipe, seed, pin
        number, count = part
        share = recipe.batch // count
        self.mine = slice(number * share, (number + 1) * share)
        self.doing: dict[int, int] = {}

    def make(self, iteration: int) -> Batch:
        """The batch of one iteration."""
        epoch, _ = position(iteration, self.recipe.batch, len(self.split))
        chosen = places(self.seed, iteration, self.recipe.batch, len(self.split))
        samples = []
        for index, repeat in chosen[self.mine]:
            self.doing[iteration] = index
            samples.append(self._sample(epoch, index, repeat))
        self.doing.pop(iteration)
        images, labels, boxes = (torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True))
        if self.pin:
            images, labels = images.pin_memory(), labels.pin_memory()
        ids = tuple(self.split.ids[index] for index, _ in chosen)
        return Batch(images.permute(0, 3, 1, 2), labels, boxes, ids, iteration, epoch)

    def _sample(self, epoch: int, index: int, repeat: int) -> Sample:
        rng = sample_rng(self.seed, epoch, index, repeat)
        try:
            image, label = self.split.image(index), self.split.label(index)
            return augment(image, label, self.recipe.augmentation, self.recipe.input_scale, rng)
        except Exception as error:
            raise self.fault(index, f"{type(error).__name__}: {error}") from error

    def fault(self, index: int, found: str) -> DataError:
        """The error that names a sample."""
        return DataError(
            explain(
                f"Sample {self.split.ids[index]!r} cannot be loaded.",
                expected="a crop of its image and label",
                found=found,
                where=f"{self.split.folder}, split {self.split.name!r}, index {index}",
                fix="check the disk and prepare the data again; if it stays, report it with this message",
            )
        )


def _ahead(maker: _Maker, wanted: range, workers: int, timeout: float) -> Iterator[Batch]:
    """Batches in order, a few of them made in advance."""
    threads = Threads[Batch](workers, "segkd-data")
    waiting: deque[tuple[int, Future[Batch]]] = deque()
    rest = iter(wanted)
    try:
        for _ in wanted:
            while len(waiting) < AHEAD * workers and (iteration := next(rest, None)) is not None:
                waiting.append((iteration, threads.submit(maker.make, iteration)))
            yield _arrived(maker, *waiting.popleft(), timeout)
    finally:
        for _, future in waiting:
            future.cancel()
        threads.stop()


def _arrived(maker: _Maker, iteration: int, future: Future[Batch], timeout: float) -> Batch:
    try:
        return future.result(timeout)
    except TimeoutError:
        raise maker.fault(maker.doing.get(iteration, 0), f"no batch within {timeout:g} s") from None
