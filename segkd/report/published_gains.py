"""Is the gain that a paper publishes for a method reproduced, and is there any gain? Over seeds, table by table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segkd.report.collect import Entry, TableEvidence
from segkd.report.estimate import Estimate, estimate
from segkd.report.evidence import Evidence
from segkd.report.verdict import NO_BEST, Verdict, gain_verdict, incomparable


@dataclass(frozen=True)
class PublishedGain:
    """A published gain, points, with what was reproduced of it.

    `p`: of the one-sided paired t-test over seeds of "gain > 0", corrected within the table by Holm; None for n < 2.
    `table`: title of the table that publishes the student alone, where it is another one.
    """

    points: float
    verdict: Verdict
    reproduced: Estimate | None = None
    p: float | None = None
    table: str = ""


def published_gains(table: TableEvidence, study: Sequence[TableEvidence]) -> list[PublishedGain | None]:
    """One for each entry of the table; None where the paper gives no gain. `study`: all tables of the study."""
    pairs = [(entry, *_student_alone(entry, (table, *study))) for entry in table.entries]
    gains = [_gain(entry, alone, where, table) if alone and where else None for entry, alone, where in pairs]
    # lines that ask the same of the same runs are one test
    tests = [
        (entry.key, alone.key, entry.published.selection) if alone and entry.published else None
        for entry, alone, _ in pairs
    ]
    asked = {test: gain.p for test, gain in zip(tests, gains, strict=True) if test and gain and gain.p is not None}
    corrected = dict(zip(asked, _holm(list(asked.values())), strict=True))
    return [
        replace(gain, p=corrected.get(test)) if gain and test else None for test, gain in zip(tests, gains, strict=True)
    ]


def _student_alone(entry: Entry, tables: Sequence[TableEvidence]) -> tuple[Entry | None, TableEvidence | None]:
    """The row that publishes the same student without teacher and its table; the first table that has one decides."""
    if entry.published is None or entry.alone or entry.released:
        return None, None
    for table in tables:
        alike = [one for one in table.entries if one.alone and _same_question(entry, one)]
        same_way = [one for one in alike if one.published and one.published.selection == entry.published.selection]
        if alike:
            return (same_way or alike)[0], table
    return None, None


def _same_question(entry: Entry, alone: Entry) -> bool:
    """Are both published for one student, recipe and split?"""
    if entry.published is None or alone.published is None:
        return False
    same_student = (entry.run.recipe, entry.run.network) == (alone.run.recipe, alone.run.network)
    return same_student and entry.published.split == alone.published.split


def _gain(entry: Entry, alone: Entry, where: TableEvidence, table: TableEvidence) -> PublishedGain | None:
    if entry.published is None or alone.published is None:
        return None
    points = entry.published.miou - alone.published.miou
    pairs = _pairs(entry, alone)
    ways = entry.published.selection, alone.published.selection
    scores = [(mine.chosen(ways[0]), other.chosen(ways[1])) for mine, other in pairs]
    differences = [mine - other for mine, other in scores if mine is not None and other is not None]
    reproduced = estimate(differences) if ways[0] == ways[1] else None
    if not pairs:
        verdict = Verdict("not run", _missing(entry, alone))
    elif reason := _incomparable(entry, alone, pairs[0]):
        verdict = Verdict("not comparable", reason)
    elif reproduced is None:
        verdict = Verdict("not comparable", NO_BEST if ways[0] == "best" else "no mIoU was scored")
    else:
        verdict = gain_verdict(points, reproduced)
    p = one_sided_p(differences) if reproduced else None
    return PublishedGain(points, verdict, reproduced, p, "" if where is table else where.table.title)


def _pairs(entry: Entry, alone: Entry) -> list[tuple[Evidence, Evidence]]:
    """What was scored with the method and without, seed by seed."""
    ours, theirs = ({one.run.seed: one for one in rows.scored} for rows in (entry, alone))
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _missing(entry: Entry, alone: Entry) -> str:
    """Why there is no pair."""
    if not entry.scored:
        return entry.missing
    return "no seed that both have" if alone.scored else f"student alone: {alone.missing}"


def _incomparable(entry: Entry, alone: Entry, pair: tuple[Evidence, Evidence]) -> str:
    for rows, one, whose in ((entry, pair[0], ""), (alone, pair[1], "student alone: ")):
        split = one.evaluation["split"] if one.evaluation else None
        if rows.published and (reason := incomparable(rows.published, split)):
            return f"{whose}{reason}"
    if entry.published and alone.published and entry.published.selection != alone.published.selection:
        ways = entry.published.selection, alone.published.selection
        return f"published for the {ways[0]} checkpoint, the student alone for the {ways[1]} one"
    return ""


def one_sided_p(differences: Sequence[float]) -> float | None:
    """p of the paired t-test over seeds against "the mean difference is at most 0"; None for fewer than two seeds.

    Where all seeds differ by exactly the same there is no doubt left: 0 for a gain, 1 otherwise.
    """
    found = estimate(differences)
    if found is None or found.sd is None:
        return None
    if found.sd == 0:
        return 0.0 if found.mean > 0 else 1.0
    from scipy import stats

    return float(stats.t.sf(found.mean / (found.sd / found.n**0.5), found.n - 1))


def _holm(values: list[float]) -> list[float]:
    if not values:
        return []
    from segkd.evaluation.stats import holm

    return [float(value) for value in holm(values)]
