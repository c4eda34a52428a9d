"""Images and labels that look like photographs to a codec, drawn; as files, and as segkd prepares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segkd.config.data import FolderData
from segkd.data.download import download
from segkd.data.prepare import prepare
from segkd.data.prepared import Prepared

NOISE = 1  # grey levels: a PNG of 2048 x 1024 then has 2.6 MB; Cityscapes' have 2.3 MB on average
SPLITS = ("train", "val")


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Blurred colours with a little noise, (height, width, 3) uint8."""
    rng, (height, width) = np.random.default_rng(seed), size
    coarse = rng.integers(0, 256, (max(2, height // 32), max(2, width // 32), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + rng.integers(-NOISE, NOISE + 1, smooth.shape, np.int16), 0, 255).astype(np.uint8)


def label(seed: int, size: tuple[int, int], classes: int) -> np.ndarray:
    """Rectangles of one class each, one in twenty of them ignored (255), (height, width) uint8."""
    rng, (height, width) = np.random.default_rng(seed), size
    coarse = rng.integers(0, classes, (max(2, height // 64), max(2, width // 64)), dtype=np.uint8)
    coarse[rng.random(coarse.shape) < 0.05] = 255
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))


def write_files(root: Path, images: int, size: tuple[int, int], classes: int, suffix: str = ".png") -> FolderData:
    """A data set of `images` files in each of train and val, described as segkd's kind `folder`."""
    for number, split in enumerate(SPLITS):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for k in range(images):
            seed = number * images + k
            Image.fromarray(picture(seed, size)).save(root / f"images/{split}/{k:04d}{suffix}", quality=90)
            Image.fromarray(label(seed, size, classes)).save(root / f"labels/{split}/{k:04d}.png")
    names = [f"class {k}" for k in range(classes)]
    (root / "dataset.yaml").write_text(f"classes: {names}\n", encoding="utf-8")
    return FolderData(kind="folder", root=str(root))


def prepared(config: FolderData, place: Path) -> Prepared:
    """The same data as segkd prepares them: memory-mapped arrays under `place`."""
    download("drawn", config, place / "raw")
    return Prepared(prepare("drawn", config, place / "raw", place / "prepared").parent)
