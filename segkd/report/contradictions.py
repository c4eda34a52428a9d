"""Where two studies publish different values for what should be one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segkd.config.params import Params
from segkd.report.rows import Row, TableRows

_SAME = 0.005  # percent: papers print two digits


@dataclass(frozen=True)
class Claim:
    """What a study publishes: all its values of one number, percent, and the recipes under which they are rebuilt."""

    study: str
    values: tuple[float, ...]
    recipes: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Contradiction:
    """One number for which at least two studies share no value."""

    dataset: str
    split: str
    method: str
    student: str
    teacher: str | None
    claims: tuple[Claim, ...]


def contradictions(studies: Mapping[str, Sequence[TableRows]], params: Params) -> list[Contradiction]:
    """All contradictions, in a fixed order.

    One number is one data set, split, method (by the class that computes it), student and teacher. A study that
    publishes several values for it, such as an ablation, contradicts only a study that has none of these.
    """
    groups: dict[tuple[str, str, str, str, str], dict[str, list[Row]]] = {}
    for study, tables in studies.items():
        for row in (row for table in tables for row in table.rows):
            if row.entry.published and not row.entry.released:
                groups.setdefault(_number(row, params), {}).setdefault(study, []).append(row)
    found = []
    for (dataset, split, method, student, teacher), by_study in sorted(groups.items()):
        claims = tuple(_claim(study, rows) for study, rows in by_study.items())
        if any(_apart(one, other) for one in claims for other in claims):
            found.append(Contradiction(dataset, split, method, student, teacher or None, claims))
    return found


def _number(row: Row, params: Params) -> tuple[str, str, str, str, str]:
    entry = row.entry
    recipe, method = params.recipes.get(entry.run.recipe), params.methods.get(entry.cell.method)
    return (
        recipe.dataset if recipe else entry.run.recipe,
        entry.published.split if entry.published else "",
        method.method if method else entry.cell.method,
        entry.run.network,
        entry.run.teacher or "",
    )


def _claim(study: str, rows: Sequence[Row]) -> Claim:
    published = [row.entry.published for row in rows if row.entry.published]
    return Claim(
        study,
        tuple(dict.fromkeys(one.miou for one in published)),
        tuple(dict.fromkeys(row.entry.run.recipe for row in rows)),
        tuple(dict.fromkeys(one.source for one in published)),
    )


def _apart(one: Claim, other: Claim) -> bool:
    return all(abs(mine - theirs) > _SAME for mine in one.values for theirs in other.values)
