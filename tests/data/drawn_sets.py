"""Published data sets drawn in miniature: genuine layouts and file forms, a few small pictures, counts to match."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from made_data import picture, put
from PIL import Image
from scipy import sparse
from scipy.io import savemat

from segkd.config.data import DatasetConfig
from segkd.data import entries
from segkd.data.catalogue import ids_hash
from segkd.data.download import download
from segkd.data.folder import voc_colour
from segkd.data.prepare import prepare
from segkd.data.prepared import Prepared

HEIGHT, WIDTH = 6, 9


def jpeg(seed: int, height: int = HEIGHT, width: int = WIDTH, mode: str = "RGB", **options: object) -> bytes:
    """JPEG bytes of random pixels."""
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, height, width)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def palette_png(ids: np.ndarray) -> bytes:
    """A label as VOC publishes it: palette indices, whose colours play no part."""
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette([value for k in range(256) for value in voc_colour(k)])
    assert image.mode == "P"
    return _png(image)


def grey_png(ids: np.ndarray) -> bytes:
    """A label of ids in one 8-bit channel."""
    return _png(Image.fromarray(ids.astype(np.uint8)))


def deep_png(ids: np.ndarray) -> bytes:
    """A label of ids in one 16-bit channel."""
    return _png(Image.fromarray(ids.astype(np.uint16)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sbd_mat(ids: np.ndarray) -> bytes:
    """A mask of SBD: GTcls with Segmentation beside cells of sparse boundaries."""
    boundaries = np.empty((20, 1), object)
    for k in range(20):
        boundaries[k, 0] = sparse.csc_matrix((ids == k + 1).astype(np.float64))
    present = np.unique(ids[ids > 0]).astype(np.uint8)[:, None]
    return mat(
        {"GTcls": {"Boundaries": boundaries, "Segmentation": ids.astype(np.uint8), "CategoriesPresent": present}}
    )


def context_mat(ids: np.ndarray, dtype: type = np.uint16) -> bytes:
    """A mask of Pascal Context: 459 ids in LabelMap."""
    return mat({"LabelMap": ids.astype(dtype)})


def mat(content: dict[str, object]) -> bytes:
    """Bytes of a compressed MATLAB 5 file."""
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=True)
    return buffer.getvalue()


def of_ids(*values: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A map that holds these ids, row by row again and again."""
    return np.resize(np.array(values), (height, width))


def few(monkeypatch: pytest.MonkeyPatch, kind: str, ids: dict[str, list[str]] | None = None, **counts: int) -> None:
    """Let the catalogue expect so many images, and these ids where they are given."""
    known = {split: ids_hash(names) for split, names in (ids or {}).items()}
    monkeypatch.setitem(entries.INFOS, kind, dataclasses.replace(entries.INFOS[kind], counts=counts, ids_sha256=known))


def voc_files(root: Path, year: int, **listed: list[str]) -> Path:
    """JPEGImages of all listed ids and one more, and the lists; returns VOCdevkit/VOC<year>."""
    base = root / f"VOCdevkit/VOC{year}"
    lists = "Segmentation" if year == 2012 else "Main"
    for split, ids in listed.items():
        put(base / f"ImageSets/{lists}/{split}.txt", "".join(f"{one}\n" for one in ids))
    for seed, one in enumerate(sorted({one for ids in listed.values() for one in ids} | {"2007_999999"})):
        put(base / f"JPEGImages/{one}.jpg", jpeg(seed))
    return base


def taken(config: DatasetConfig, source: Path, place: Path) -> Prepared:
    """Taken over with `--from source` and prepared."""
    download(config.kind, config, place / "raw", source=source)
    return Prepared(prepare(config.kind, config, place / "raw", place / "prepared").parent)


def labels_of(prepared: Prepared, split: str) -> dict[str, np.ndarray]:
    """Prepared labels by id."""
    part = prepared.split(split)
    return {name: np.array(part.label(i)) for i, name in enumerate(part.ids)}
