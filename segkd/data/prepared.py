"""Prepared data: memory-mapped images and labels of any sizes, with an index and a manifest.

A folder holds images.bin (RGB pixels), labels.bin (class per pixel, 255 = ignored), index.npz and manifest.json.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt8

from segkd.config.base import digest
from segkd.errors import DataError, explain
from segkd.files import read_json, sha256_file

FORMAT = 1
IGNORE = 255
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def content_hash(files: dict[str, dict[str, Any]], classes: list[str]) -> str:
    """sha256 (hex) that names prepared data: over the hashes of its files and its class names."""
    return digest({"files": {name: entry["sha256"] for name, entry in files.items()}, "classes": classes})


class Split:
    """One split of prepared data. Images and labels are read-only views of files, read where they are looked at."""

    def __init__(
        self, name: str, folder: Path, ids: list[str], sizes: Int64[np.ndarray, "n 2"], offsets: Int64[np.ndarray, " n"]
    ) -> None:
        self.name, self.folder, self.ids = name, folder, ids
        self._sizes, self._offsets = sizes, offsets

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: a worker process maps them itself instead of receiving a copy of the data."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_images", "_labels")}

    @cached_property
    def _images(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        return np.memmap(self.folder / "images.bin", np.uint8, "r")

    @cached_property
    def _labels(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        return np.memmap(self.folder / "labels.bin", np.uint8, "r")

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) of image i, pixels."""
        return int(self._sizes[i, 0]), int(self._sizes[i, 1])

    def image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB pixels of image i."""
        (height, width), start = self.size(i), 3 * int(self._offsets[i])
        return np.asarray(self._images[start : start + 3 * height * width]).reshape(height, width, 3)

    def label(self, i: int) -> UInt8[np.ndarray, "h w"]:
        """Class of each pixel of image i; 255 = ignored."""
        (height, width), start = self.size(i), int(self._offsets[i])
        return np.asarray(self._labels[start : start + height * width]).reshape(height, width)


class Prepared:
    """A prepared data set. DataError where the folder is incomplete or does not belong to its manifest.

    classes: names; palette: RGB per class; mean, std: per channel of train, 0..255; class_pixels: per split (classes,);
    ignored_pixels: per split; sha256: names the content (see `content_hash`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = read_json(path / "manifest.json")
        if self.manifest.get("format") != FORMAT:
            raise self._fault(f"format {FORMAT}", f"format {self.manifest.get('format')!r}", path / "manifest.json")
        for name, entry in self.manifest["files"].items():
            self._check_size(path / name, entry["bytes"])
        if sha256_file(path / "index.npz") != self.manifest["files"]["index.npz"]["sha256"]:
            raise self._fault("the index that the manifest names", "another content", path / "index.npz")
        self.name: str = self.manifest["name"]
        self.classes: tuple[str, ...] = tuple(self.manifest["classes"])
        self.palette: tuple[tuple[int, int, int], ...] = tuple((r, g, b) for r, g, b in self.manifest["palette"])
        self.mean: tuple[float, ...] = tuple(self.manifest["mean"])
        self.std: tuple[float, ...] = tuple(self.manifest["std"])
        splits: dict[str, dict[str, Any]] = self.manifest["splits"]
        self.class_pixels = {split: np.array(entry["class_pixels"], np.int64) for split, entry in splits.items()}
        self.ignored_pixels: dict[str, int] = {split: entry["ignored_pixels"] for split, entry in splits.items()}
        self.sha256: str = content_hash(self.manifest["files"], list(self.classes))

    def split(self, name: str) -> Split:
        """Images and labels of "train", "val" or "test"; DataError where the data set has no such split."""
        if name not in self.manifest["splits"]:
            found = ", ".join(self.manifest["splits"])
            raise DataError(
                explain(
                    f"Data set {self.name!r} has no split {name!r}.",
                    expected=name,
                    found=found,
                    where=self.path,
                    fix="choose one of these in the recipe, or add the split to the data set and prepare it again",
                )
            )
        with np.load(self.path / "index.npz", allow_pickle=False) as index:
            ids, sizes, offsets = (index[f"{name}_{part}"] for part in ("ids", "sizes", "offsets"))
        return Split(name, self.path, [str(one) for one in ids], sizes, offsets)

    def verify(self) -> None:
        """Hash every file; DataError where one is not what the manifest names."""
        for name, entry in self.manifest["files"].items():
            if (found := sha256_file(self.path / name)) != entry["sha256"]:
                raise self._fault(f"sha256 {entry['sha256']}", found, self.path / name)

    def _check_size(self, file: Path, size: int) -> None:
        found = f"{file.stat().st_size} bytes" if file.exists() else "no such file"
        if found != f"{size} bytes":
            raise self._fault(f"{size} bytes", found, file)

    def _fault(self, expected: object, found: object, where: Path) -> DataError:
        return DataError(
            explain(
                "Prepared data are damaged or incomplete.",
                expected=expected,
                found=found,
                where=where,
                fix=f"prepare them again: segkd prepare {self.path.name}",
            )
        )
