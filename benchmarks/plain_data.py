"""The plain way to make training crops, as research code commonly does it: the baseline of benchmarks.data.

Per item: decode both files, flip, resize the whole image by a random factor, pad, crop, then normalise in float32.
Written from the papers' protocols; what segkd does otherwise is only how, not what.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from segkd.config.recipe import Augmentation

IGNORE = 255


class PlainDataset:
    """Image and label files of a folder, read again for every crop."""

    def __init__(self, root: Path, split: str, config: Augmentation) -> None:
        self.images = sorted((root / "images" / split).iterdir())
        self.labels = sorted((root / "labels" / split).iterdir())
        self.config, self.random = config, random.Random(0)
        self.mean = np.array(config.normalise.mean, np.float32)
        self.std = np.array(config.normalise.std, np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One normalised crop (3, h, w) float32 and its label (h, w) int64."""
        image, label = self.whole(index)
        if self.random.random() < self.config.flip:
            image, label = ImageOps.mirror(image), ImageOps.mirror(label)
        factor = self.random.uniform(self.config.scale.low, self.config.scale.high)
        size = round(image.width * factor), round(image.height * factor)
        image, label = image.resize(size, Image.Resampling.BILINEAR), label.resize(size, Image.Resampling.NEAREST)
        height, width = self.config.crop
        more = (0, 0, max(0, width - size[0]), max(0, height - size[1]))
        if any(more):
            image, label = ImageOps.expand(image, more, fill=0), ImageOps.expand(label, more, fill=IGNORE)
        left, top = self.random.randint(0, image.width - width), self.random.randint(0, image.height - height)
        box = (left, top, left + width, top + height)
        return self.tensors(image.crop(box), label.crop(box))

    def whole(self, index: int) -> tuple[Image.Image, Image.Image]:
        """An image and its label, decoded."""
        return Image.open(self.images[index]).convert("RGB"), Image.open(self.labels[index])

    def tensors(self, image: Image.Image, label: Image.Image) -> tuple[Tensor, Tensor]:
        """Normalised in float32, channels first."""
        pixels = (np.array(image).astype(np.float32) / 255 - self.mean) / self.std
        return torch.from_numpy(pixels.transpose(2, 0, 1)).float(), torch.from_numpy(np.array(label)).long()


def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Two batches."""
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)
