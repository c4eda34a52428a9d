"""Check every image and label before anything is prepared; all faults come in one error."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from segkd.data.catalogue import ids_hash
from segkd.data.decode import FaultError, decode_image, decode_label
from segkd.data.labels import advice
from segkd.data.mat import decode_mat
from segkd.data.prepared import SPLITS
from segkd.data.sources import Collection, Pair
from segkd.errors import DataError, explain, listing

Pixels = np.ndarray[Any, np.dtype[Any]]

log = logging.getLogger(__name__)

THREADS = min(16, os.cpu_count() or 1)
WINDOW = 2 * THREADS + 4  # decoded pairs held at once: memory stays flat whatever the size of the data set


@dataclass
class Looked:
    """What one pair was found to be; image and label (already in classes) only where both are sound."""

    pair: Pair
    image: UInt8[np.ndarray, "h w 3"] | None = None
    label: UInt8[np.ndarray, "h w"] | None = None
    faults: list[str] = field(default_factory=list)
    ids: frozenset[int] = frozenset()
    pixels_hash: bytes = b""


class Check:
    """Looks at a collection once, in order; `sound()` hands out what is good, `finish()` raises what is not."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.faults = list(collection.faults)
        self._seen: set[int] = set()
        self._strange: dict[int, list[str]] = {}
        self._first: dict[bytes, Pair] = {}
        self._ids: dict[str, list[str]] = {}
        self._twins: list[str] = []
        self._known = frozenset(collection.labels.ids())

    def sound(self) -> Iterator[Looked]:
        """Pairs without a fault, split by split (train, val, test), in the collection's order."""
        pairs = sorted(self.collection.pairs, key=lambda pair: SPLITS.index(pair.split))
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[Future[Looked]] = deque()
            for pair in pairs:
                waiting.append(pool.submit(look, self.collection, pair))
                if len(waiting) >= WINDOW:
                    yield from self._judge(waiting.popleft().result())
            while waiting:
                yield from self._judge(waiting.popleft().result())

    def _judge(self, looked: Looked) -> Iterator[Looked]:
        pair = looked.pair
        self._ids.setdefault(pair.split, []).append(pair.id)
        self.faults += looked.faults
        self._seen |= looked.ids
        strange = looked.ids - self._known
        for one in strange:
            self._strange.setdefault(one, []).append(pair.label)
        if looked.pixels_hash:
            twin = self._first.setdefault(looked.pixels_hash, pair)
            if twin.split != pair.split:
                where = self._twins if self.collection.published else self.faults
                where.append(f"{pair.image}: is the same picture as {twin.image} in {twin.split}")
        if looked.image is not None and not strange:
            yield looked

    def finish(self) -> None:
        """DataError with every fault of the data set, or nothing."""
        faults = self.faults + self._count_faults() + self._id_faults()
        if self._twins:
            log.warning("%d pictures stand in two splits, as published; first %s", len(self._twins), self._twins[0])
        if not faults:
            return
        raise DataError(
            explain(
                f"The data set has {len(faults)} fault{'s' * (len(faults) > 1)}; nothing was prepared.",
                expected="readable pairs of one size, label ids that the description knows, no picture in two splits",
                found="\n" + listing(faults),
                where=self.collection.root,
                fix="correct the files or their description, then run `segkd download` and `segkd prepare` again",
            )
        )

    def _count_faults(self) -> list[str]:
        info, found = self.collection.info, self._ids
        counts = [
            f"split {split}: {count} images expected, {len(found.get(split, ()))} found"
            for split, count in (info.counts or {}).items()
            if len(found.get(split, ())) != count
        ]
        if counts:
            return counts
        return [
            f"split {split}: other images than published (sha256 of the sorted ids {ids_hash(found.get(split, ()))})"
            for split, published in info.ids_sha256.items()
            if ids_hash(found.get(split, ())) != published
        ]

    def _id_faults(self) -> list[str]:
        if not self._strange:
            doubt = self.collection.doubt
            return [fault] if doubt and self._seen and (fault := doubt(frozenset(self._seen))) else []
        known = ", ".join(map(str, sorted(self._known)))
        faults = [
            f"label id {one}: in {len(names)} file{'s' * (len(names) > 1)}, first {names[0]}; known are {known}"
            for one, names in sorted(self._strange.items())
        ]
        described = not self.collection.published
        help_ = advice(self._seen, self.collection.labels, len(self.collection.info.classes)) if described else ""
        seen = ", ".join(map(str, sorted(self._seen)))
        return [*faults, f"label ids seen in the whole data set: {seen}" + (f"; {help_}" if help_ else "")]


def look(collection: Collection, pair: Pair) -> Looked:
    """Read, verify and decode one pair."""
    looked = Looked(pair)
    image = _decoded(collection, pair.image, partial(decode_image, published=collection.published), looked.faults)
    read = partial(decode_mat, path=collection.mat) if pair.label.endswith(".mat") else decode_label
    ids = _decoded(collection, pair.label, read, looked.faults)
    if ids is not None:
        looked.ids = frozenset(np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist())
    if image is not None:
        shape = b"%dx%d" % image.shape[:2]
        looked.pixels_hash = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, person=shape).digest()
    if image is None or ids is None:
        return looked
    if (fault := _size_fault(collection, pair, image.shape[:2], ids.shape)) is not None:
        looked.faults.append(fault)
        return looked
    looked.image, looked.label = image, collection.labels.apply(ids)
    return looked


def _decoded(collection: Collection, name: str, decode: Callable[[bytes], Pixels], faults: list[str]) -> Pixels | None:
    try:
        content = (collection.root / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != collection.hashes.get(name):
            state = "has changed" if name in collection.hashes else "is new"
            raise FaultError(f"{state} since `segkd download`: run that again")
        return decode(content)
    except FaultError as fault:
        faults.append(f"{name}: {fault}")
    except OSError as error:
        faults.append(f"{name}: cannot be read: {error.strerror or error}")
    return None


def _size_fault(collection: Collection, pair: Pair, image: tuple[int, ...], label: tuple[int, ...]) -> str | None:
    def text(shape: tuple[int, ...]) -> str:
        return f"{shape[1]} x {shape[0]}"

    if image != label:
        return f"{pair.label}: is {text(label)} but its image {pair.image} is {text(image)}"
    if collection.size is not None and image != collection.size:
        return f"{pair.image}: is {text(image)}, not {text(collection.size)}"
    return None
