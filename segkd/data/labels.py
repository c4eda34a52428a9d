"""From the ids that a label file holds to classes 0 ... C-1 and 255 = ignored; and advice where ids do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt, UInt8

IGNORE = 255
CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # labelIds of classes 0 ... 18


@dataclass(frozen=True)
class LabelMap:
    """table[id] = class or 255; known[id] = whether the id may occur. Ids beyond the table may not."""

    table: UInt8[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, ids: Mapping[int, int], *, others: int | None = None, size: int = 256) -> LabelMap:
        """Map of id -> class (255 = ignored). others: what other ids below `size` mean, None = they are faults."""
        table = np.full(size, IGNORE if others is None else others, np.uint8)
        known = np.full(size, others is not None)
        for one, target in ids.items():
            table[one], known[one] = target, True
        return cls(table, known)

    def apply(self, label: UInt[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """Classes of a label file's ids; what an id that may not occur becomes has no meaning."""
        return np.take(self.table, label, mode="clip")

    def unknown(self, label: UInt[np.ndarray, "h w"]) -> list[int]:
        """Ids in a label file that may not occur, ascending."""
        seen = np.unique(label)
        return [int(one) for one in seen if one >= len(self.known) or not self.known[one]]

    def ids(self) -> list[int]:
        """Ids that may occur, ascending."""
        return [int(one) for one in np.flatnonzero(self.known)]


def advice(seen: set[int], labels: LabelMap, classes: int) -> str:
    """The lines of the description file that would make the ids seen in a data set fit; "" where none is known."""
    strange = seen - set(labels.ids())
    if classes == len(CITYSCAPES) and max(seen) <= 33:
        pairs = ", ".join(f"{one}: {target}" for target, one in enumerate(CITYSCAPES))
        return f"these look like Cityscapes' raw labelIds 0 to 33: `map: {{{pairs}}}` and `unlisted: ignore`"
    if classes == 2 and seen == {0, IGNORE}:
        return "this looks like a black and white mask: `map: {0: 0, 255: 1}` and `ignore: []`"
    if strange == {IGNORE}:
        return "255 usually means ignored (also where -1 was written as 8 bits): add it, `ignore: [..., 255]`"
    if strange <= {classes, IGNORE}:
        rest = ", 255" if IGNORE in seen else ""
        return (
            f"if {classes} means void: `ignore: [{classes}{rest}]`; if 0 means unlabelled and classes count from 1 "
            f"(subtract 1): `first_id: 1` and `ignore: [0{rest}]`"
        )
    return ""
