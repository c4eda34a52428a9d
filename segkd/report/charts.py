"""The report's figures: gains, per-class IoU, accuracy against cost. Each takes rows and returns SVG text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from segkd.report import text
from segkd.report.evidence import PERCENT
from segkd.report.rows import Row, TableRows
from segkd.report.svg import INK, PAPER, SOFT, draw, legend_columns

BETTER, WORSE = "#0b7a57", "#c0492f"
_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b8860b",
    "#56a3d9",
    "#8a63c9",
)  # Okabe and Ito, for both themes
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def looks(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each row, the same in every figure: teacher in ink, student alone in grey."""
    methods = [row for row in rows if not row.entry.is_teacher and not row.is_baseline]
    shapes = zip(islice(cycle(_COLOURS), len(methods)), islice(cycle(_MARKERS), len(methods)), strict=True)
    found = {
        row.key: {"color": colour, "marker": marker} for row, (colour, marker) in zip(methods, shapes, strict=True)
    }
    for row in rows:
        if row.key not in found:
            found[row.key] = {
                "color": INK if row.entry.is_teacher else SOFT,
                "marker": "*" if row.entry.is_teacher else "o",
            }
    return found


def gain_plot(table: TableRows) -> str | None:
    """Gain over the student alone per method: mean, 95 % interval, one light dot per seed, a line at zero."""
    rows = [row for row in table.distinct if row.gain]
    if not rows:
        return None

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(reversed(rows)):
            _gain_line(axes, place, row)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mIoU gain over the student without teacher, points")

    return draw("gain", (6.6, 1.0 + 0.42 * len(rows)), paint)


def _gain_line(axes: Any, place: int, row: Row) -> None:
    gain = row.gain
    if gain is None:
        return
    colour = {"better": BETTER, "worse": WORSE}.get(gain.words, SOFT)
    axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(gain.per_seed, [place - 0.22] * len(gain.per_seed), "|", color=SOFT, markersize=5, markeredgewidth=0.9)
    axes.plot([gain.mean], [place], "o", color=colour, markersize=6.5, markeredgecolor=PAPER, markeredgewidth=0.8)
    label = f"{text.signed(gain.mean)} {text.interval(gain.low, gain.high, sign=True)} {gain.words}"
    axes.annotate(label, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=INK)


def class_map(table: TableRows) -> str | None:
    """IoU per class, mean over seeds: rows are methods, columns are classes; a class never seen stays empty."""
    rows = [row for row in table.distinct if row.miou]
    names, values = class_iou(rows)
    if not names:
        return None
    width = 2.2 + max(0.42 * len(names), 3.0) if len(names) <= 40 else 2.2 + 0.16 * len(names)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        cells = [[float("nan") if value is None else value for value in line] for line in reversed(values)]
        mesh = axes.pcolormesh(cells, cmap="YlGnBu", vmin=0, vmax=100, edgecolors=PAPER, linewidth=1.2)
        if len(names) <= 40:
            _write_cells(axes, cells, mesh)
        axes.set_xticks([place + 0.5 for place in range(len(names))], names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks([place + 0.5 for place in range(len(rows))], [row.label for row in reversed(rows)])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)

    return draw("classes", (width, 1.25 + 0.36 * len(rows)), paint)


def _write_cells(axes: Any, cells: list[list[float]], mesh: Any) -> None:
    for y, line in enumerate(cells):
        for x, value in enumerate(line):
            red, green, blue, _ = mesh.cmap(mesh.norm(value)) if not math.isnan(value) else (1, 1, 1, 1)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            shown = f"{value:.0f}" if not math.isnan(value) else text.DASH
            colour = SOFT if shown == text.DASH else "#ffffff" if dark else "#10202c"
            axes.text(x + 0.5, y + 0.5, shown, ha="center", va="center", fontsize=8, color=colour)


def class_iou(rows: Sequence[Row]) -> tuple[list[str], list[list[float | None]]]:
    """Class names, and IoU per row and class: percent, mean over the seeds that have one; None where none has."""
    evaluations = [[one.evaluation for one in row.entry.scored if one.evaluation] for row in rows]
    names: list[str] = next((group[0]["classes"] for group in evaluations if group), [])
    values: list[list[float | None]] = []
    for group in evaluations:
        same = [evaluation["per_class"] for evaluation in group if evaluation["classes"] == names]
        columns = [[one[place]["iou"] for one in same if one[place]["iou"] is not None] for place in range(len(names))]
        values.append([PERCENT * sum(column) / len(column) if column else None for column in columns])
    return names, values


def cost_plot(table: TableRows) -> str | None:
    """mIoU with its interval against operations per image and against training time."""
    rows = [row for row in table.distinct if row.miou]
    panels: list[tuple[str, Callable[[Row], float | None]]] = [
        ("operations per image, GFLOPs", lambda row: row.flops / 1e9 if row.flops else None),
        ("parameters, millions", lambda row: row.parameters / 1e6 if row.parameters else None),
        ("training time, seconds", lambda row: row.seconds.mean if row.seconds else None),
    ]
    panels = [panel for panel in panels if any(panel[1](row) for row in rows)]
    if not panels:
        return None

    def paint(figure: Any) -> None:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (label, cost) in zip(grid, panels, strict=True):
            for row in rows:
                _cost_point(axes, row, cost(row), looks(table.distinct)[row.key])
            costs = [found for row in rows if (found := cost(row))]
            if max(costs) > 8 * min(costs):
                axes.set_xscale("log")
            axes.margins(x=0.15, y=0.12)
            axes.set_xlabel(label)
        grid[0].set_ylabel("mIoU, %")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handletextpad=0.4, columnspacing=1.2)

    columns = legend_columns([row.label for row in rows], 7.6, 4)
    return draw("cost", (7.6, 2.9 + 0.2 * ((len(rows) - 1) // columns)), paint)


def _cost_point(axes: Any, row: Row, cost: float | None, look: dict[str, Any]) -> None:
    if row.miou is None or not cost:
        return
    miou = row.miou
    if miou.low is not None and miou.high is not None:
        axes.plot([cost, cost], [miou.low, miou.high], color=look["color"], linewidth=1.1, alpha=0.8)
    size = 10 if row.entry.is_teacher else 6.5
    axes.plot(
        [cost],
        [miou.mean],
        linestyle="none",
        label=row.label,
        markersize=size,
        markeredgecolor=PAPER,
        markeredgewidth=0.7,
        **look,
    )
