"""Small data sets drawn on the spot: files of a folder, recipes, and a prepared data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkd.config.data import FolderData
from segkd.config.recipe import Augmentation, Recipe
from segkd.data.download import download
from segkd.data.prepare import prepare

DESCRIPTION = "classes: [road, car, sky]\n"


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Random RGB pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ids(seed: int, height: int = 12, width: int = 16, classes: int = 3) -> np.ndarray:
    """Random class ids, some ignored."""
    label = np.random.default_rng(seed).integers(0, classes, (height, width), dtype=np.uint8)
    label[0, :2] = 255
    return label


def png(pixels: np.ndarray, mode: str | None = None, **options: Any) -> bytes:
    """PNG bytes of an array."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    """Write a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def folder(root: Path, counts: dict[str, int] | None = None, description: str = DESCRIPTION) -> FolderData:
    """A sound folder data set; image k of a split is 12 + k high."""
    put(root / "dataset.yaml", description)
    seed = 0
    for split, count in (counts or {"train": 4, "val": 2, "test": 2}).items():
        for k in range(count):
            seed += 1
            put(root / f"images/{split}/{split}{k}.png", png(picture(seed, 12 + k)))
            put(root / f"labels/{split}/{split}{k}.png", png(ids(seed, 12 + k)))
    return FolderData(kind="folder", root=str(root))


def prepared(config: FolderData, place: Path, name: str = "mine") -> Path:
    """Download and prepare; returns the prepared folder."""
    download(name, config, place / "raw")
    return prepare(name, config, place / "raw", place / "prepared").parent


def recipe(crop: tuple[int, int] = (10, 10), batch: int = 2, **augmentation: Any) -> Recipe:
    """A recipe of which only batch and augmentation matter here."""
    return Recipe.model_validate(
        {
            "dataset": "mine",
            "iterations": 8,
            "batch": batch,
            "augmentation": Augmentation(crop=crop, **augmentation).model_dump(),
            "optimiser": {"name": "sgd", "lr": 0.1},
        }
    )
