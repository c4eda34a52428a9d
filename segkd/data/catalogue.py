"""What is known about each kind of data set before any of it is there.

A further data set is an entry here, a configuration model in segkd.config.data, and a reader and its archives in
segkd.data.sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from segkd.config.data import ContextData, DatasetConfig, FolderData
from segkd.errors import ConfigError, explain

Colour = tuple[int, int, int]

PUBLISHED = ("cityscapes", "voc", "voc-aug", "ade20k", "context", "coco-stuff")  # as archives; see segkd.data.entries


@dataclass(frozen=True)
class Info:
    """Facts of a data set. palette: RGB per class; counts: images per split, None where they are the user's own.

    licence: what was found; demands: what it asks of you; redistributable: whether copies may be pushed elsewhere.
    ids_sha256: `ids_hash` per split, where the published list is known.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    counts: dict[str, int] | None
    licence: str
    demands: str
    redistributable: bool
    homepage: str
    ids_sha256: dict[str, str] = field(default_factory=dict)


def ids_hash(ids: Iterable[str]) -> str:
    """sha256 (hex) of ids, sorted, one a line: names a split whatever its order."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(ids)).encode()).hexdigest()


CAMVID = Info(
    name="CamVid, 11 classes, 480 x 360",
    classes=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    counts={"train": 367, "val": 101, "test": 233},
    licence="none stated; published for research",
    demands=(
        "research use; cite Brostow, Shotton, Fauqueur, Cipolla (ECCV 2008) and Brostow, Fauqueur, Cipolla (Pattern "
        "Recognition Letters 2009), for this version Badrinarayanan, Kendall, Cipolla (SegNet, TPAMI 2017)"
    ),
    redistributable=False,
    homepage="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
)


def _digits() -> Info:
    from segkd.data import digits

    return Info(
        name="Digits: scenes of handwritten digits",
        classes=tuple(digits.CLASSES),
        palette=tuple(digits.PALETTE),
        counts=None,
        licence="BSD-3-Clause (scikit-learn); the digits themselves CC BY 4.0 (UCI)",
        demands="name the source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        redistributable=True,
        homepage="https://archive.ics.uci.edu/dataset/80",
    )


def _published(kind: str) -> Info:
    from segkd.data import entries

    return entries.INFOS[kind]


ENTRIES: dict[str, Callable[[], Info]] = {
    "camvid": lambda: CAMVID,
    "digits": _digits,
    **{kind: partial(_published, kind) for kind in PUBLISHED},
}


def info(kind: str) -> Info:
    """Facts of a kind of data set; ConfigError where there is no entry (a `folder` describes itself: `info_of`)."""
    if kind not in ENTRIES:
        raise ConfigError(
            explain(
                f"The catalogue has no data set {kind!r}.",
                expected=f"one of {', '.join(sorted(ENTRIES))}",
                found=kind,
                where="segkd.data.catalogue",
                fix="correct `kind`, or describe your own files with kind: folder",
            )
        )
    return ENTRIES[kind]()


def info_of(config: DatasetConfig) -> Info:
    """Facts of a data set as configured; a folder's come from its description file."""
    if isinstance(config, FolderData):
        from segkd.data.folder import describe

        return describe(config).info()
    if isinstance(config, ContextData):
        from segkd.data.entries import context

        return context(config.background, info(config.kind))
    return info(config.kind)
