"""A plan in words: tables for a terminal, or the same as plain text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segkd.availability.decision import Need, listed
from segkd.availability.obstacles import in_bytes
from segkd.overview.cost import FLOAT32, Machine
from segkd.overview.study import CellPlan, Disk, Overview, RunPlan, StudyPlan

_PAGES = 1_500_000  # bytes of a study's pages, about


@dataclass(frozen=True)
class Grid:
    """A table of texts; columns from `numbers` on hold numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int


def text(overview: Overview, *, details: bool, width: int | None = None) -> str:
    """The plan as text. details: also every table of every study; width: of the terminal, for rich; None: plain."""
    parts: list[Grid | str] = [_studies(overview)]
    for study in overview.studies if details else ():
        parts += _details(study, overview.needs)
    parts += [_data(overview.disk.items()), _measures(overview.machine, overview.runs), _doubts(overview.runs)]
    if overview.needs:
        parts.append(f"Not to be had on this machine:\n{listed(overview.needs)}")
    return "\n\n".join(_plain(part) if width is None else _rich(part, width) for part in parts if part) + "\n"


def _studies(overview: Overview) -> Grid:
    head = ("study", "cells", "runs", "done", "cannot be run", "shared", "GPU hours", "still to do", "data", "models")
    rows = [(study.name, str(study.cells), *_row(study.runs, str(study.shared))) for study in overview.studies]
    sizes = [_size(overview.disk[one] for one in study.data if one in overview.disk) for study in overview.studies]
    if len(rows) > 1:
        cells = sum(study.cells for study in overview.studies)
        rows.append(("together", str(cells), *_row(overview.runs, "")))
        sizes.append(_size(overview.disk.values()))
    return Grid("Studies", head, tuple((*row[:-1], size, row[-1]) for row, size in zip(rows, sizes, strict=True)), 1)


def _row(runs: Sequence[RunPlan], shared: str) -> tuple[str, ...]:
    """Runs, done, not to be run, shared, hours, hours that are left, bytes of weights."""
    counts = [sum(one.state == state for one in runs) for state in ("done", "cannot be run")]
    left = [one for one in runs if one.state == "to do"]
    weights = in_bytes(sum(one.weights for one in runs))
    return str(len(runs)), *map(str, counts), shared, _hours(runs), _hours(left), weights


def _hours(runs: Iterable[RunPlan]) -> str:
    runs = list(runs)
    hours = sum(one.hours for one in runs)
    known = f"{hours:.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 0.05 or not hours else "<0.1"
    return f"{known} + ?" if any(one.uncounted for one in runs) else known


def _size(disks: Iterable[Disk]) -> str:
    disks = list(disks)
    total = in_bytes(sum((one.raw or 0) + one.prepared for one in disks))
    return total if all(one.exact for one in disks) else f"~{total}"


def _details(study: StudyPlan, needs: Sequence[Need]) -> list[Grid | str]:
    head = ("runs", "state", "GPU hours")
    grids: list[Grid | str] = []
    if study.before:
        rows = tuple((one.run.name, _state([one], needs), _hours([one])) for one in study.before)
        grids.append(Grid(f"{study.name}: what others learn from", head, rows, 2))
    for table in study.tables:
        rows = tuple(
            (_names(cell), cell.cannot_run or _state(cell.runs, needs), _hours(cell.runs)) for cell in table.cells
        )
        grids.append(Grid(f"{study.name}, {table.name}: {table.title}", head, rows, 2))
    return grids


def _names(cell: CellPlan) -> str:
    """recipe/network/method@teacher/seed{0,1,2}; the method alone for a cell without runs."""
    names = [one.run.name for one in cell.runs]
    if len(names) < 2:
        return names[0] if names else f"{cell.method}: no runs"
    return f"{names[0].rpartition('/')[0]}/seed{{{','.join(str(one.run.seed) for one in cell.runs)}}}"


def _state(runs: Sequence[RunPlan], needs: Sequence[Need]) -> str:
    """The state that all have, or how many are done; then what those lack that cannot be run."""
    states, done = {one.state for one in runs}, sum(one.state == "done" for one in runs)
    state = states.pop() if len(states) == 1 else f"{done} of {len(runs)} done"
    reasons = "; ".join(one.reason for one in runs if one.state == "cannot be run")
    lacking = ", ".join(need.what for need in needs if need.reason in reasons)
    return f"{state}: {lacking}" if lacking else state


def _data(disks: Iterable[tuple[str, Disk]]) -> Grid:
    rows = tuple(
        (name, *("?" if size is None else ("" if disk.exact else "~") + in_bytes(size) for size in sizes))
        for name, disk in disks
        if (sizes := (disk.raw, disk.prepared))
    )
    return Grid("Data on disk", ("data set", "raw", "prepared"), rows, 1)


def _measures(machine: Machine, runs: Sequence[RunPlan]) -> str:
    working, share = in_bytes(max((one.working for one in runs), default=0)), 100 * machine.utilisation
    return f"""\
GPU hours: on one GPU that reaches {share:g} % (--utilisation) of {machine.tflops:g} TFLOP/s (--tflops).
  Counted: per image of the crop 3 forward passes of the student, 1 of its teacher, the method's convolutions; then
  the looks at val and the final score, in float32 at {100 * FLOAT32:g} % of that peak.
  Left out: products between positions, images or memories within losses; reading of data; waiting.
models: weights that stay; a run in progress takes up to {working} more. A study's pages take about {in_bytes(_PAGES)}.
shared: runs that another study needs too, made once. ~: an estimate, since sizes of images vary."""


def _doubts(runs: Iterable[RunPlan]) -> str:
    found = {one.uncounted: one.run.name for one in runs if one.uncounted}
    return "\n".join(["Not counted (?):", *(f"  - {run}: {why}" for why, run in found.items())]) if found else ""


def _plain(part: Grid | str) -> str:
    if isinstance(part, str):
        return part
    widths = [max(map(len, column)) for column in zip(part.head, *part.rows, strict=True)]
    lines = [
        "  ".join(f"{one:{'>' if k >= part.numbers else '<'}{widths[k]}}" for k, one in enumerate(line)).rstrip()
        for line in (part.head, *part.rows)
    ]
    return "\n".join([part.title, *lines])


def _rich(part: Grid | str, width: int) -> str:
    from rich.console import Console
    from rich.table import Table

    if isinstance(part, str):
        return part
    table = Table(title=part.title, title_justify="left", title_style="bold")
    for number, name in enumerate(part.head):
        table.add_column(name, justify="right" if number >= part.numbers else "left", overflow="fold")
    for row in part.rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, markup=False, highlight=False).print(table)
    return out.getvalue().rstrip("\n")
