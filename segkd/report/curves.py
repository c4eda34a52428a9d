"""Training curves: mean and range over seeds of the loss and of the mIoU on val."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.report.charts import looks
from segkd.report.evidence import PERCENT, read_journal
from segkd.report.rows import Row, TableRows
from segkd.report.svg import draw, legend_columns

POINTS = 60  # of a curve: more cannot be told apart at this size


@dataclass(frozen=True)
class Curve:
    """Iterations with mean, lowest and highest value over seeds, all of one length."""

    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def curve(seeds: Sequence[Sequence[dict[str, Any]]], kind: str, value: str, points: int = POINTS) -> Curve | None:
    """A value of journals (one a seed) over the iterations that all have; neighbours are averaged down to `points`."""
    lines = [_values(journal, kind, value) for journal in seeds]
    lines = [line for line in lines if line]
    if not lines:
        return None
    shared = sorted(set.intersection(*(set(line) for line in lines)))
    if not shared:
        return None
    step = -(-len(shared) // points)
    groups = [shared[start : start + step] for start in range(0, len(shared), step)]
    columns = [[statistics.fmean(line[i] for i in group) for line in lines] for group in groups]
    return Curve(
        tuple(group[-1] for group in groups),
        tuple(statistics.fmean(column) for column in columns),
        tuple(min(column) for column in columns),
        tuple(max(column) for column in columns),
    )


def _values(journal: Sequence[dict[str, Any]], kind: str, value: str) -> dict[int, float]:
    """Value per iteration; lines without it, or where it was not finite, are left out."""
    found = {line["iteration"]: line["values"].get(value) for line in journal if line.get("kind") == kind}
    return {int(iteration): float(number) for iteration, number in found.items() if number is not None}


def curve_plot(table: TableRows, root: Path) -> str | None:
    """The students' own cross-entropy (which all methods share, unlike their total loss) and mIoU on val, if logged."""
    journals = {row.key: [read_journal(root, one.run) for one in row.entry.evidence] for row in table.distinct}
    loss = ("cross-entropy on train", _curves(table.distinct, journals, "train", "task"), 1.0)
    if not loss[1]:
        loss = ("loss on train", _curves(table.distinct, journals, "train", "loss"), 1.0)
    panels = [loss, ("mIoU on val, %", _curves(table.distinct, journals, "val", "miou"), PERCENT)]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None

    def paint(figure: Any) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (label, curves, factor) in zip(grid, panels, strict=True):
            axes.set_title(label)
            axes.set_xlabel("iteration")
            for row, line in curves:
                _paint(axes, row, line, factor, looks(table.distinct)[row.key]["color"])
        most = max(grid, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
        figure.legend(*most.get_legend_handles_labels(), loc="outside lower left", ncols=columns, columnspacing=1.2)

    columns = legend_columns([row.label for row in table.distinct], 7.6, 5)
    return draw("curves", (7.6, 2.9 + 0.2 * ((len(table.distinct) - 1) // columns)), paint)


def _curves(rows: Sequence[Row], journals: dict[str, Any], kind: str, value: str) -> list[tuple[Row, Curve]]:
    return [(row, line) for row in rows if (line := curve(journals[row.key], kind, value))]


def _paint(axes: Any, row: Row, line: Curve, factor: float, colour: str) -> None:
    scaled = [[factor * number for number in part] for part in (line.mean, line.low, line.high)]
    dash = (0, (4, 2)) if row.entry.is_teacher else "solid"
    axes.plot(line.iterations, scaled[0], color=colour, linestyle=dash, label=row.label)
    axes.fill_between(line.iterations, scaled[1], scaled[2], color=colour, alpha=0.16, linewidth=0)
