"""A plan for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from segkd.overview.study import Overview, RunPlan, StudyPlan, TablePlan

FORMAT = 1
_STATES = {"done": "done", "to_do": "to do", "cannot_be_run": "cannot be run"}


def as_json(overview: Overview) -> dict[str, Any]:
    """Hours on one GPU of `machine`, sizes in bytes; every study with its tables, cells and runs."""
    return {
        "format": FORMAT,
        "machine": asdict(overview.machine),
        "studies": [_study(study) for study in overview.studies],
        "together": _sums(overview.runs),
        "data": {name: asdict(disk) for name, disk in overview.disk.items()},
        "needs": [{**asdict(need), "studies": list(need.studies)} for need in overview.needs],
    }


def _study(study: StudyPlan) -> dict[str, Any]:
    return {
        "name": study.name,
        "title": study.title,
        "cells": study.cells,
        "shared": study.shared,
        **_sums(study.runs),
        "data": list(study.data),
        "tables": [_table(table) for table in study.tables],
        "runs": {one.run.name: _run(one) for one in study.runs},
    }


def _table(table: TablePlan) -> dict[str, Any]:
    cells = [
        {"method": cell.method, "cannot_run": cell.cannot_run, "runs": [one.run.name for one in cell.runs]}
        for cell in table.cells
    ]
    return {"name": table.name, "title": table.title, "cells": cells}


def _run(one: RunPlan) -> dict[str, Any]:
    return {
        "state": one.state,
        "reason": one.reason,
        "gpu_hours": one.hours,
        "weights_bytes": one.weights,
        "working_bytes": one.working,
        "uncounted": one.uncounted,
    }


def _sums(runs: Sequence[RunPlan]) -> dict[str, Any]:
    return {
        "count": len(runs),
        **{key: sum(one.state == state for one in runs) for key, state in _STATES.items()},
        "gpu_hours": sum(one.hours for one in runs),
        "gpu_hours_to_do": sum(one.hours for one in runs if one.state == "to do"),
        "weights_bytes": sum(one.weights for one in runs),
    }
