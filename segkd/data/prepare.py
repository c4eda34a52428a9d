"""The step `prepare`: from a data set's files to memory-mapped arrays with an index; manifest.json comes last."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from segkd.config.data import DatasetConfig, DigitsData
from segkd.data.catalogue import Info, ids_hash, info_of
from segkd.data.check import Check
from segkd.data.download import exclusive
from segkd.data.prepared import FORMAT, IGNORE, SPLITS
from segkd.data.progress import progress
from segkd.data.sources import RAW_FORMAT, collect
from segkd.errors import DataError, explain
from segkd.files import atomic_open, atomic_save, read_json, sha256_file, write_json

log = logging.getLogger(__name__)

Item = tuple[str, str, UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]  # split, id, image, label


def prepare(name: str, config: DatasetConfig, raw: Path, out: Path) -> Path:
    """Check everything in `raw`, then write `out`; returns out/manifest.json. Equal inputs give equal bytes.

    DataError lists all faults of the data set at once; `out` is then left as it was.
    """
    source = _raw_manifest(name, config, raw)
    with exclusive(out):
        if isinstance(config, DigitsData):
            info = info_of(config)
            writer = _write(out, len(info.classes), _drawn(config))
        else:
            collection = collect(config, raw, source)
            info, check = collection.info, Check(collection)
            writer = _write(out, len(info.classes), _checked(name, check))
        manifest = _manifest(name, config, info, source, writer, out)
        write_json(out / "manifest.json", manifest)
    for split, facts in manifest["splits"].items():
        log.info("%s %s: %d images", name, split, facts["images"])
    return out / "manifest.json"


def _raw_manifest(name: str, config: DatasetConfig, raw: Path) -> dict[str, Any]:
    """raw/manifest.json; DataError where it was written for another configuration or by another version."""
    manifest: dict[str, Any] = read_json(raw / "manifest.json")
    wanted = {"format": RAW_FORMAT, "config": config.model_dump(mode="json")}
    if (found := {key: manifest.get(key) for key in wanted}) != wanted:
        raise DataError(
            explain(
                "The downloaded data were made for another configuration.",
                expected=wanted,
                found=found,
                where=raw / "manifest.json",
                fix=f"segkd download {name}",
            )
        )
    return manifest


def _drawn(config: DigitsData) -> Iterator[Item]:
    from segkd.data.digits import scenes

    drawn = scenes(config)
    for split in SPLITS:
        if split in drawn:
            images, labels = drawn[split]
            for k in range(len(images)):
                yield split, f"{split}_{k:05d}", images[k], labels[k]


def _checked(name: str, check: Check) -> Iterator[Item]:
    """Sound pairs; after the last one every fault of the data set is raised, which discards what was written."""
    with progress(f"check {name}", len(check.collection.pairs)) as advance:
        for looked in check.sound():
            advance(1)
            if looked.image is not None and looked.label is not None and not check.faults:
                yield looked.pair.split, looked.pair.id, looked.image, looked.label
    check.finish()


def _write(out: Path, classes: int, items: Iterator[Item]) -> Writer:
    """Stream the arrays to images.bin and labels.bin, then write index.npz."""
    with ExitStack() as stack:
        images = stack.enter_context(atomic_open(out / "images.bin"))
        labels = stack.enter_context(atomic_open(out / "labels.bin"))
        writer = Writer(images, labels, classes)
        for item in items:
            writer.add(*item)
        (out / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not what it names
    atomic_save(out / "index.npz", lambda file: np.savez(file, allow_pickle=False, **writer.index()))
    return writer


def histogram(pixels: UInt8[np.ndarray, "*shape"]) -> Int64[np.ndarray, "channels 256"]:
    """How often each value occurs in each channel of (h, w) or (h, w, 3); twice as fast as numpy.bincount."""
    return np.array(Image.fromarray(pixels).histogram(), np.int64).reshape(-1, 256)


class Writer:
    """Appends images and labels to two files and keeps count."""

    def __init__(self, images: BinaryIO, labels: BinaryIO, classes: int) -> None:
        self.classes = classes
        self._files, self._hashes, self._sizes = (images, labels), (hashlib.sha256(), hashlib.sha256()), [0, 0]
        self._entries: dict[str, list[tuple[str, int, int, int]]] = {}
        self._pixels: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
        self._channels = np.zeros((3, 256), np.int64)  # histogram of train: sums stay exact

    def add(self, split: str, name: str, image: UInt8[np.ndarray, "h w 3"], label: UInt8[np.ndarray, "h w"]) -> None:
        """Append one image with its label (classes, 255 = ignored)."""
        (pixels,) = histogram(label)
        if pixels[self.classes : IGNORE].any() or image.shape[:2] != label.shape:
            raise ValueError(f"{name}: label {label.shape} does not fit {image.shape} and {self.classes} classes")
        self._entries.setdefault(split, []).append((name, *label.shape, self._sizes[1]))
        self._pixels[split] = self._pixels.get(split, np.zeros(256, np.int64)) + pixels
        if split == "train":
            self._channels += histogram(image)
        for k, array in enumerate((image, label)):
            content = np.ascontiguousarray(array)
            self._files[k].write(content.data)
            self._hashes[k].update(content.data)
            self._sizes[k] += content.nbytes

    def index(self) -> dict[str, np.ndarray[Any, Any]]:
        """Per split: ids, sizes (n, 2) height and width, offsets (n,) in pixels."""
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for split, entries in self._entries.items():
            arrays[f"{split}_ids"] = np.array([name for name, *_ in entries], dtype=np.str_)
            arrays[f"{split}_sizes"] = np.array([entry[1:3] for entry in entries], np.int64)
            arrays[f"{split}_offsets"] = np.array([entry[3] for entry in entries], np.int64)
        return arrays

    def files(self) -> dict[str, dict[str, Any]]:
        """Size and hash of the two files."""
        names = ("images.bin", "labels.bin")
        return {
            name: {"bytes": size, "sha256": found.hexdigest()}
            for name, size, found in zip(names, self._sizes, self._hashes, strict=True)
        }

    def splits(self) -> dict[str, dict[str, Any]]:
        """Images, the hash of their ids, and pixels per split."""
        return {
            split: {
                "images": len(entries),
                "ids_sha256": ids_hash(name for name, *_ in entries),
                "class_pixels": self._pixels[split][: self.classes].tolist(),
                "ignored_pixels": int(self._pixels[split][IGNORE]),
            }
            for split, entries in self._entries.items()
        }

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation (of the population) per channel of train, 0 to 255."""
        values = list(range(256))
        means, deviations = [], []
        for histogram in self._channels.tolist():
            count = sum(histogram) or 1
            total = sum(v * n for v, n in zip(values, histogram, strict=True))
            squares = sum(v * v * n for v, n in zip(values, histogram, strict=True))
            means.append(total / count)
            deviations.append(math.sqrt(max(0, count * squares - total * total)) / count)
        return means, deviations


def _manifest(
    name: str, config: DatasetConfig, info: Info, source: dict[str, Any], writer: Writer, out: Path
) -> dict[str, Any]:
    mean, std = writer.statistics()
    index = out / "index.npz"
    return {
        "format": FORMAT,
        "name": name,
        "title": info.name,
        "config": config.model_dump(mode="json"),
        "classes": list(info.classes),
        "palette": [list(colour) for colour in info.palette],
        "ignore": IGNORE,
        "splits": writer.splits(),
        "mean": mean,
        "std": std,
        "licence": info.licence,
        "demands": info.demands,
        "redistributable": info.redistributable,
        "source": {key: source.get(key) for key in ("how", "published_bytes", "digits_sha256") if key in source},
        "files": {
            **writer.files(),
            "index.npz": {"bytes": index.stat().st_size, "sha256": sha256_file(index)},
        },
    }
