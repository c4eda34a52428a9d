"""Pictures: input, label and every network's prediction with its errors, on the study's fixed list of images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from segkd.config.runs import PREPARED
from segkd.data.prepared import IGNORE, Prepared, Split
from segkd.errors import DataError
from segkd.report.evidence import Evidence, read_samples
from segkd.report.rows import Row, TableRows

LONGEST = 320  # pixels of an embedded picture's longer side: enough to see, small enough to carry
SMALL = 96  # pictures below this are enlarged without smoothing
_RIGHT, _WRONG, _IGNORED = (226, 229, 232), (200, 55, 40), (150, 156, 163)

Picture = str  # a data: URI


@dataclass(frozen=True)
class Prediction:
    """One network on one image: what it said, where it was wrong, and the share of pixels that are right (percent)."""

    label: str
    seed: int | None
    labels: Picture
    errors: Picture
    right: float


@dataclass(frozen=True)
class Sample:
    """One image of the fixed list."""

    id: str
    image: Picture
    label: Picture
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Grid:
    """All samples of a table, the colours of the classes, and why there is nothing to show, if so."""

    samples: tuple[Sample, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()  # class, #rrggbb
    pixelated: bool = False
    split: str = ""
    missing: str = ""


def grid(table: TableRows, root: Path) -> Grid:
    """The pictures of a table, of each row's first scored seed."""
    shown = [(row, row.entry.scored[0]) for row in table.distinct if row.entry.scored]
    if not shown:
        return Grid(missing="nothing has been evaluated yet")
    record, evaluation = shown[-1][1].record, shown[-1][1].evaluation
    if not record or not evaluation:
        return Grid(missing="run.json is missing")
    name = record["data"]["name"]
    try:
        prepared = Prepared(root / PREPARED / name)
        split = prepared.split(evaluation["split"])
    except DataError:
        return Grid(missing=f"the prepared data set {name!r} is not here; `segkd prepare {name}` brings it back")
    if prepared.sha256 != evaluation["data_sha256"]:
        return Grid(missing=f"the prepared data set {name!r} is another one than was scored")
    samples = _samples(split, prepared.palette, shown, root)
    legend = tuple((name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in _pairs(prepared))
    small = bool(samples) and max(split.size(split.ids.index(samples[0].id))) < SMALL
    return Grid(samples, legend, small, split.name, "" if samples else "no sample predictions were kept")


def _pairs(prepared: Prepared) -> zip[tuple[str, tuple[int, int, int]]]:
    return zip(prepared.classes, prepared.palette, strict=True)


def _samples(
    split: Split, palette: Sequence[tuple[int, int, int]], shown: Sequence[tuple[Row, Evidence]], root: Path
) -> tuple[Sample, ...]:
    predicted = [(row, one, read_samples(root, one.run)) for row, one in shown]
    ids = dict.fromkeys(name for _, _, maps in predicted for name in maps)
    places = {name: place for place, name in enumerate(split.ids)}
    samples = []
    for name in ids:
        if name not in places:
            continue
        truth = split.label(places[name])
        predictions = tuple(
            _prediction(row, one, maps[name], truth, palette) for row, one, maps in predicted if name in maps
        )
        samples.append(Sample(name, picture(split.image(places[name])), painted(truth, palette), predictions))
    return tuple(samples)


def _prediction(
    row: Row,
    one: Evidence,
    labels: UInt8[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
    palette: Sequence[tuple[int, int, int]],
) -> Prediction:
    truth = _fitted(truth, labels.shape)
    counted = truth != IGNORE
    right = 100.0 * float((labels == truth)[counted].mean()) if counted.any() else 0.0
    errors = np.where(counted, np.where(labels == truth, 0, 1), 2).astype(np.uint8)
    return Prediction(
        row.label, one.run.seed, painted(labels, palette), painted(errors, (_RIGHT, _WRONG, _IGNORED)), right
    )


def _fitted(labels: UInt8[np.ndarray, "h w"], shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    """Labels at the size that a protocol scores at (AICSD's short side 513), nearest neighbour."""
    if labels.shape == shape:
        return labels
    image = Image.fromarray(np.ascontiguousarray(labels))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def picture(image: UInt8[np.ndarray, "h w 3"]) -> Picture:
    """An RGB image as PNG, shrunk to LONGEST."""
    shrunk = Image.fromarray(np.ascontiguousarray(image))
    shrunk.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return _png(shrunk)


def painted(labels: UInt8[np.ndarray, "h w"], palette: Sequence[tuple[int, int, int]]) -> Picture:
    """A label map as palette PNG, shrunk to LONGEST without mixing classes; ignored pixels are white."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(palette)] = palette
    image = Image.fromarray(np.ascontiguousarray(labels))
    if max(image.size) > LONGEST:
        factor = LONGEST / max(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.NEAREST)
    image.putpalette(colours.tobytes())
    return _png(image)


def _png(image: Image.Image) -> Picture:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
