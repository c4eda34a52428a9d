"""Small splits on disk, networks whose answers are known, and slow references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segkd.config.recipe import Recipe
from segkd.data.prepared import Prepared, Split
from segkd.files import sha256_file, write_json
from segkd.networks.outputs import Outputs

IGNORE = 255
STEP = 20  # grey levels between the colours of neighbouring classes


def recipe(evaluation: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A recipe whose normalising changes nothing, so that networks see grey levels."""
    plain = {"divide": 1.0, "mean": (0, 0, 0), "std": (1, 1, 1)}
    base = {
        "dataset": "tiny",
        "iterations": 1,
        "batch": 1,
        "augmentation": {"crop": (8, 8), "normalise": plain},
        "optimiser": {"name": "sgd", "lr": 0.1},
        "evaluation": {"split": "val", **(evaluation or {})},
    }
    return Recipe.model_validate(base | changes)


def paint(label: np.ndarray) -> np.ndarray:
    """An image from which `Colours` reads the label; ignored pixels are black like class 0."""
    grey = np.where(label == IGNORE, 0, label * STEP).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


class Colours(nn.Module):
    """Predicts the class that `paint` used, at stride 1; remembers what it was shown."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.arange(classes).float() * STEP)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Outputs:
        self.seen.append(tuple(x.shape))
        logits = -(x[:, :1] - self.levels.view(1, -1, 1, 1)).abs()
        return Outputs(logits, logits, ())


class Strided(nn.Module):
    """Random convolutions down to a quarter of the size: any input size, outputs of no meaning."""

    def __init__(self, classes: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Conv2d(8, classes, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Outputs:
        logits = self.head(self.body(x))
        return Outputs(logits, logits, ())


def labels(count: int, sizes: Sequence[tuple[int, int]], classes: int, seed: int = 0) -> list[np.ndarray]:
    """Blocky random labels with some ignored blocks."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        blocks = rng.integers(0, classes + 1, (height // 4 + 1, width // 4 + 1))
        blocks[blocks == classes] = IGNORE
        found.append(np.kron(blocks, np.ones((4, 4)))[:height, :width].astype(np.uint8))
    return found


def write_split(folder: Path, name: str, images: list[np.ndarray], truth: list[np.ndarray]) -> Split:
    """One split in files of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = np.array([label.shape for label in truth], np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes.prod(1))[:-1]])
    (folder / "images.bin").write_bytes(b"".join(image.tobytes() for image in images))
    (folder / "labels.bin").write_bytes(b"".join(label.tobytes() for label in truth))
    ids = [f"{name}-{index}" for index in range(len(truth))]
    np.savez(folder / "index.npz", **{f"{name}_ids": np.array(ids), f"{name}_sizes": sizes, f"{name}_offsets": offsets})
    return Split(name, folder, ids, sizes, offsets)


def painted_split(folder: Path, truth: list[np.ndarray]) -> Split:
    return write_split(folder, "val", [paint(label) for label in truth], truth)


def write_prepared(folder: Path, images: list[np.ndarray], truth: list[np.ndarray], classes: int) -> Prepared:
    """A prepared data set with one split, val."""
    write_split(folder, "val", images, truth)
    names = ("images.bin", "labels.bin", "index.npz")
    counts = [sum(int((label == c).sum()) for label in truth) for c in range(classes)]
    manifest = {
        "format": 1,
        "name": "tiny",
        "files": {n: {"sha256": sha256_file(folder / n), "bytes": (folder / n).stat().st_size} for n in names},
        "classes": [f"class{c}" for c in range(classes)],
        "palette": [[c, c, c] for c in range(classes)],
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "splits": {"val": {"class_pixels": counts, "ignored_pixels": sum(int((t == IGNORE).sum()) for t in truth)}},
    }
    write_json(folder / "manifest.json", manifest)
    return Prepared(folder)


def slow_confusion(prediction: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for guess, truth in zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True):
        if truth != IGNORE:
            matrix[truth, guess] += 1
    return matrix


def slow_boundary(prediction: np.ndarray, label: np.ndarray, classes: int, distance: int) -> np.ndarray:
    """Cheng et al. by morphology: mask minus its erosion, per class, on a canvas of zeros."""
    from scipy.ndimage import binary_erosion

    guess = np.where(label == IGNORE, IGNORE, prediction)

    def rim(mask: np.ndarray) -> np.ndarray:
        return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)

    pairs = [(rim(label == c), rim(guess == c)) for c in range(classes)]
    return np.array([[(a & b).sum() for a, b in pairs], [(a | b).sum() for a, b in pairs]])


def slow_ece(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total
