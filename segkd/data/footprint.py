"""What is known of a data set before it is there: images per split, their usual size, bytes on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segkd.config.data import CamVidData, DatasetConfig, DigitsData, FolderData
from segkd.data.catalogue import info_of
from segkd.data.sources import ARCHIVES
from segkd.errors import DataError, explain

SIZES: dict[str, tuple[int, int]] = {  # height, width of most images
    "camvid": (360, 480),
    "cityscapes": (1024, 2048),
    "voc": (375, 500),
    "voc-aug": (375, 500),
    "context": (375, 500),
    "ade20k": (512, 683),
    "coco-stuff": (480, 640),
}
ALIKE = {"camvid", "digits"}  # kinds whose images all have that size, and whose files are counted to the byte
_PIXEL = 4  # bytes of a prepared pixel: red, green, blue, class


@dataclass(frozen=True)
class Facts:
    """images: per split; size: (height, width) of most images; exact: all are of that size, and `raw` is no estimate.

    Bytes: raw, what stays of what is fetched (None: nobody says); prepared, the arrays made from it.
    """

    classes: int
    images: dict[str, int]
    size: tuple[int, int]
    exact: bool
    raw: int | None

    @property
    def prepared(self) -> int:
        """Bytes of the prepared arrays."""
        return sum(self.images.values()) * self.size[0] * self.size[1] * _PIXEL

    @property
    def disk(self) -> int:
        """Bytes of raw and prepared data, as far as known."""
        return (self.raw or 0) + self.prepared


def facts(config: DatasetConfig) -> Facts:
    """Facts of a data set as configured. ConfigError or DataError for a `folder` that is not there, or is unusable."""
    if isinstance(config, FolderData):
        return _folder(config)
    info = info_of(config)
    if isinstance(config, DigitsData):
        images, size = {str(split): count for split, count in config.scenes.items()}, (config.size, config.size)
    else:
        images, size = info.counts or {}, SIZES[config.kind]
    return Facts(len(info.classes), images, size, config.kind in ALIKE, _raw(config))


def _raw(config: DatasetConfig) -> int | None:
    """Bytes of the raw data, once they are unpacked."""
    if isinstance(config, DigitsData):
        return 0
    if isinstance(config, CamVidData):
        from segkd.data import camvid

        return sum(row.bytes for row in camvid.rows())
    sizes = [one.unpacked or one.bytes for one in ARCHIVES[config.kind](config)]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _folder(config: FolderData) -> Facts:
    from PIL import Image

    from segkd.data import folder

    root = folder.require_root(config)
    description = folder.describe(config)
    pairs, _ = folder.pairs(config, description)
    if not pairs:
        raise DataError(
            explain(
                "A data set's folder holds no pair of image and label.",
                expected="images/{train,val,test} and labels/{train,val,test}",
                found="no pair",
                where=root,
                fix="put the files there, or correct the lists in " + config.description,
            )
        )
    images: dict[str, int] = {}
    for pair in pairs:
        images[pair.split] = images.get(pair.split, 0) + 1
    with Image.open(Path(root) / pairs[0].image) as image:
        size = image.height, image.width
    return Facts(len(description.classes), images, size, False, 0)
