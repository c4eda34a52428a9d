"""`digits`: small scenes composed from the handwritten digits that come with scikit-learn; needs no download.

Bright digits stand on a dark textured ground, never on each other, each with a ring of ignored pixels as VOC has.
Colour separates digit from ground but tells nothing about the class. Train, val and test scenes are composed from
disjoint handwritten samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segkd.config.data import DigitsData
from segkd.errors import DataError, explain

CLASSES = ("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PALETTE = (
    (0, 0, 0),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (170, 110, 40),
    (128, 128, 128),
)
IGNORE = 255
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SHARES = (0.7, 0.1, 0.2)  # of each class's handwritten samples, in the order of SPLITS
TRIES = 100  # random places for one digit, and fresh starts of one scene, before giving up

Bytes = NDArray[np.uint8]
Scenes = tuple[Bytes, Bytes]


def scenes(config: DigitsData) -> dict[str, Scenes]:
    """Images (N, H, W, 3) and labels (N, H, W), uint8, per split; a pure function of `config`.

    Labels: 0 background, 1 + d for digit d, 255 on the one-pixel ring around every digit. A split's first scenes do
    not depend on how many follow. DataError where the digits do not fit into a scene.
    """
    handwriting, digits = _handwriting()
    own = sources(config.seed)
    return {split: _split(config, split, handwriting, digits, own[split]) for split in config.scenes}


def sources(seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of the handwritten samples of each split's scenes: disjoint, equal shares per class."""
    _, digits = _handwriting()
    rng = np.random.default_rng([seed, len(SPLITS)])
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SPLITS}
    for digit in range(10):
        samples = rng.permutation(np.flatnonzero(digits == digit))
        ends = np.round(np.cumsum(SHARES)[:-1] * len(samples)).astype(int)
        for split, part in zip(SPLITS, np.split(samples, ends), strict=True):
            parts[split].append(part)
    return {split: np.concatenate(part) for split, part in parts.items()}


def _handwriting() -> tuple[Bytes, NDArray[np.int64]]:
    """The 1797 handwritten samples (N, 8, 8) uint8 over full scale, and the digit each shows."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)


def _split(
    config: DigitsData, split: Split, handwriting: Bytes, digits: NDArray[np.int64], own: NDArray[np.int64]
) -> Scenes:
    rng = np.random.default_rng([config.seed, SPLITS.index(split)])
    stream = _stream(digits, own, rng)
    count, size = config.scenes[split], config.size
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty((count, size, size), np.uint8)
    for index in range(count):
        number = rng.integers(config.digits[0], config.digits[1], endpoint=True)
        chosen = [next(stream) for _ in range(number)]
        images[index], labels[index] = _scene(config, handwriting[chosen], digits[chosen], rng)
    return images, labels


def _stream(digits: NDArray[np.int64], own: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    """Samples without end: every class once per ten, and every sample of a class once before any comes twice."""
    decks: list[list[int]] = [[] for _ in range(10)]
    while True:
        for digit in rng.permutation(10):
            if not decks[digit]:
                decks[digit] = rng.permutation(own[digits[own] == digit]).tolist()
            yield decks[digit].pop()


def _scene(
    config: DigitsData, handwriting: Bytes, digits: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """One image (H, W, 3) and its label (H, W)."""
    for _ in range(TRIES):
        image, label = _ground(config, rng), np.zeros((config.size, config.size), np.uint8)
        if all(_place(config, image, label, one, digit, rng) for one, digit in zip(handwriting, digits, strict=True)):
            image += rng.normal(0, config.noise, image.shape)
            return np.round(image.clip(0, 1) * 255).astype(np.uint8), label
    raise DataError(
        explain(
            "The digits do not fit into a scene.",
            expected=f"room for {len(digits)} digits of {config.digit_size} pixels that do not touch",
            found=f"none in {TRIES} arrangements on {config.size} x {config.size} pixels",
            where="params.yaml: data set of kind `digits`",
            fix="fewer or smaller digits, or a larger size",
        )
    )


def _place(
    config: DigitsData,
    image: NDArray[np.float64],
    label: Bytes,
    handwriting: Bytes,
    digit: int,
    rng: np.random.Generator,
) -> bool:
    """Draw one digit with its ring where it touches no other; False where no such place was found."""
    side = int(rng.integers(config.digit_size[0], config.digit_size[1], endpoint=True))
    ink = _upscale(handwriting, (side, side))
    mask = ink >= 0.5
    ring = _dilate(mask)
    for top, left in rng.integers(0, config.size - side, size=(TRIES, 2), endpoint=True):
        place = np.s_[top : top + side, left : left + side]
        if not label[place][mask].any():
            break
    else:
        return False
    colour = rng.uniform((1 + config.contrast) / 2, 1, 3)
    image[place] += ink[..., None] * (colour - image[place])
    around = np.zeros((config.size + 2, config.size + 2), bool)
    around[top : top + side + 2, left : left + side + 2] = ring
    label[around[1:-1, 1:-1]] = IGNORE
    label[place][mask] = digit + 1
    return True


def _upscale(grid: Bytes, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A uint8 grid (h, w) resized smoothly, as fractions of full scale; Pillow's integers are equal on all machines."""
    return np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)) / 255


def _dilate(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every pixel within one step (8 neighbours) of the mask (h, w), one pixel wider on each side: (h + 2, w + 2)."""
    height, width = mask.shape
    wide = np.zeros((height + 2, width + 2), bool)
    for row in range(3):
        for column in range(3):
            wide[row : row + height, column : column + width] |= mask
    return wide


def _ground(config: DigitsData, rng: np.random.Generator) -> NDArray[np.float64]:
    """A dark background (H, W, 3) that runs between two colours in patches of two sizes."""
    shape = (config.size, config.size)
    coarse = _upscale(rng.integers(0, 256, (4, 4), np.uint8), shape)
    fine = _upscale(rng.integers(0, 256, (12, 12), np.uint8), shape)
    colours = rng.uniform(0, (1 - config.contrast) / 2, (2, 3))
    blend = 0.5 + config.texture * ((coarse + fine) / 2 - 0.5)
    return colours[0] + blend[..., None] * (colours[1] - colours[0])
