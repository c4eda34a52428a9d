"""Files that MLflow shows beside a run's numbers: tables, confusion matrix, sample predictions, the records."""

from __future__ import annotations

import csv
import io
import logging
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkd.config.runs import PREPARED
from segkd.errors import SegkdError
from segkd.tracking.record import Record

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

COPIES = ("run.json", "evaluation.json", "metrics.jsonl", "log.txt")
CELL, LEFT = 2.2, 0.35  # inches: a picture, the names beside them
MANY = 30  # classes beyond which names no longer fit along a matrix
log = logging.getLogger(__name__)


def write_artifacts(record: Record, root: Path, folder: Path) -> None:
    """Fill a folder with what there is about a run; a picture that cannot be drawn is left out and logged."""
    for name in COPIES:
        if (record.folder / name).exists():
            shutil.copyfile(record.folder / name, folder / name)
    if not record.scores:
        return
    (folder / "per_class.csv").write_text(per_class_table(record.scores), encoding="utf-8")
    (folder / "confusion.csv").write_text(confusion_table(record.scores), encoding="utf-8")
    confusion_figure(record.scores).savefig(folder / "confusion.png", dpi=110)
    if (record.folder / "samples.npz").exists():
        try:
            sample_figure(record, root).savefig(folder / "samples.png", dpi=110)
        except (SegkdError, OSError, KeyError, ValueError) as error:
            log.warning("%s: no picture of sample predictions: %s", record.run.name, error)


def per_class_table(scores: dict[str, Any]) -> str:
    """CSV: one line a class, fractions 0..1, empty where a class is absent."""
    columns = ["name", "iou", "accuracy", "boundary_iou", "pixels"]
    rows = [[_safe(entry["name"]), *(entry.get(column) for column in columns[1:])] for entry in scores["per_class"]]
    return _csv([columns, *rows])


def confusion_table(scores: dict[str, Any]) -> str:
    """CSV of pixel counts: rows are labels, columns predictions."""
    names = [_safe(name) for name in scores["classes"]]
    return _csv(
        [["label \\ prediction", *names], *([name, *row] for name, row in zip(names, scores["confusion"], strict=True))]
    )


def _csv(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _safe(name: str) -> str:
    """A class name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def confusion_figure(scores: dict[str, Any]) -> Figure:
    """The confusion matrix, each label's row as shares of its pixels; numbers while they are readable."""
    import numpy as np
    from matplotlib.figure import Figure

    counts = np.array(scores["confusion"], float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names, size = scores["classes"], min(3 + 0.45 * len(counts), 14)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot(
        xlabel="prediction", ylabel="label", title=f"Share of each label's pixels, {scores['split']}"
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= MANY:
        plain = [name.replace("$", r"\$") for name in names]
        axes.set_xticks(range(len(names)), plain, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), plain)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.6 else "black"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    return figure


def sample_figure(record: Record, root: Path) -> Figure:
    """Sample predictions in the data set's colours, beside image and label where the prepared data are there."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with np.load(record.folder / "samples.npz", allow_pickle=False) as file:
        ids = [str(one) for one in file["ids"]]
        predictions = [file[f"prediction_{k}"] for k in range(len(ids))]
    pictures, palette = _pictures(record, root, ids)
    titles = (["image", "label"] if pictures else []) + ["prediction"]
    tall, rows = predictions[0].shape[0] / predictions[0].shape[1], math.ceil(len(record.scores["classes"]) / 4)
    width, height, legend = CELL * len(titles) + LEFT, CELL * tall * len(ids) + 0.3, 0.2 * rows + 0.2
    figure = Figure(figsize=(width, height + legend))
    part = (LEFT / width, legend / (height + legend), 1 - LEFT / width, height / (height + legend))
    axes = figure.add_axes(part)  # one for all: a pair of axes for each picture takes ten times as long to draw
    for k, (one, prediction) in enumerate(zip(ids, predictions, strict=True)):
        shown = [pictures[k][0], _coloured(pictures[k][1], palette)] if pictures else []
        shown.append(_coloured(prediction, palette))
        top = k * tall
        for left, picture in enumerate(shown):
            place = (left + 0.02, left + 0.98, top + 0.98 * tall, top + 0.02 * tall)
            axes.imshow(picture, extent=place, interpolation="nearest")
        axes.text(
            -0.03, top + tall / 2, one[-24:].replace("$", r"\$"), fontsize=7, rotation=90, ha="right", va="center"
        )
    for left, title in enumerate(titles):
        axes.text(left + 0.5, -0.02, title, ha="center", va="bottom")
    axes.set(xlim=(0, len(titles)), ylim=(tall * len(ids), -0.3 / CELL))
    axes.set_axis_off()
    names = record.scores["classes"]
    patches = [
        Patch(color=np.array(colour) / 255, label=name.replace("$", r"\$"))
        for colour, name in zip(palette, names, strict=True)
    ]
    figure.legend(handles=patches, loc="lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _pictures(record: Record, root: Path, ids: list[str]) -> tuple[list[tuple[Any, Any]], Any]:
    """(image, label) of each id, or nothing where the data are gone or others by now; and the palette (C, 3)."""
    from segkd.data.prepared import Prepared

    name = record.done.get("data", {}).get("name", "")
    try:
        data = Prepared(root / PREPARED / name)
        if data.sha256 != record.scores["data_sha256"]:
            return [], _colours(len(record.scores["classes"]))
        split = data.split(record.scores["split"])
        places = [split.ids.index(one) for one in ids]
        return [(split.image(i), split.label(i)) for i in places], _colours(0, data.palette)
    except (SegkdError, OSError, ValueError):
        return [], _colours(len(record.scores["classes"]))


def _colours(count: int, palette: tuple[tuple[int, int, int], ...] = ()) -> Any:
    import numpy as np
    from matplotlib import colormaps

    if palette:
        return np.array(palette, np.uint8)
    return (255 * colormaps["gist_ncar"](np.linspace(0, 0.95, count))[:, :3]).astype(np.uint8)


def _coloured(classes: np.ndarray[Any, Any], palette: Any) -> Any:
    """Class ids (h, w) as RGB (h, w, 3); ignored pixels white."""
    import numpy as np

    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = palette
    return table[classes]
