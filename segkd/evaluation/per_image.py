"""Per-image pixel sums: what statistics over images start from."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from segkd.errors import DataError, explain
from segkd.evaluation.stats import Sums
from segkd.files import atomic_save


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as one compressed npz, in one step; equal arrays give equal bytes."""
    atomic_save(path, lambda file: np.savez_compressed(file, **arrays))


@dataclass(frozen=True, eq=False)
class PerImage:
    """Pixels per image and class, ignored ones removed: in the intersection, in the label, in the prediction."""

    ids: tuple[str, ...]
    intersection: Int64[np.ndarray, "n classes"]
    label: Int64[np.ndarray, "n classes"]
    prediction: Int64[np.ndarray, "n classes"]

    @property
    def sums(self) -> Sums:
        """(intersection, label, prediction), as the functions of `stats` take them."""
        return self.intersection, self.label, self.prediction

    def save(self, path: Path) -> None:
        """Write `ids`, `intersection`, `label` and `prediction` as one npz, in one step."""
        ids = np.array(self.ids, dtype=np.str_)
        arrays = {"intersection": self.intersection, "label": self.label, "prediction": self.prediction}
        save_arrays(path, {"ids": ids, **arrays})

    @classmethod
    def load(cls, path: Path) -> PerImage:
        """Read what `save` wrote; DataError where the file is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                sums = (file["intersection"], file["label"], file["prediction"])
                return cls(tuple(file["ids"].tolist()), *sums)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                explain(
                    "Per-image sums cannot be read.",
                    expected="ids, intersection, label, prediction as written by `segkd evaluate`",
                    found=error,
                    where=path,
                    fix="delete the file and evaluate the run again",
                )
            ) from None
