"""The published tables of classes: per class its id in the label files, its name and its colour.

classes/<name>.csv holds one line an id: class (empty = ignored), id, name, red, green, blue.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "classes"
IGNORE = 255


@dataclass(frozen=True)
class ClassTable:
    """names, palette: per class in order; ids: id in the label files -> class, 255 = ignored."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: dict[int, int]


def class_file(name: str) -> Path:
    """The CSV of a table."""
    return FOLDER / f"{name}.csv"


@cache
def class_table(name: str) -> ClassTable:
    """The table of "cityscapes", "voc", "ade20k", "context" or "coco-stuff"."""
    with class_file(name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [row for row in rows if row["class"]]  # in the order of the classes
    return ClassTable(
        tuple(row["name"] for row in classes),
        tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in classes),
        {_id(row["id"]): int(row["class"] or IGNORE) for row in rows},
    )


def _id(text: str) -> int:
    """As the label files hold it: -1 is written as the byte 255."""
    return int(text) if int(text) >= 0 else int(text) + 256
