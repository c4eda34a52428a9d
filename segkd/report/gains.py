"""What a method adds to the student alone, over images and seeds: the interval that tells whether it helps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from segkd.report.collect import Entry, StudyEvidence
from segkd.report.evidence import PERCENT, Evidence, read_sums

RESAMPLES = 2000


@dataclass(frozen=True)
class Gain:
    """Difference of mIoU to the student without teacher, points, with its paired 95 % interval, and what it means."""

    mean: float
    low: float
    high: float
    seeds: int
    per_seed: tuple[float, ...]

    @property
    def words(self) -> str:
        """better, worse, or no gain visible: on which side of zero the interval lies."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no gain visible"


def gain(study: StudyEvidence, entry: Entry, baseline: Entry | None) -> tuple[Gain | None, str]:
    """Paired gain over the same student without teacher on the seeds that both have, or why there is none."""
    if entry.is_teacher or entry.released:
        return None, ""
    if entry.alone:
        return None, "reference"
    if baseline is None:
        return None, "no student without teacher in this study"
    ours, theirs = ({one.run.seed: one for one in rows.scored} for rows in (entry, baseline))
    if not ours:
        return None, ""  # the score's own column says why
    seeds = sorted(seed for seed in ours.keys() & theirs.keys() if seed is not None)
    if not seeds:
        return None, f"student without teacher: {baseline.missing or 'other seeds'}"
    return _paired(study, [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def _paired(study: StudyEvidence, ours: list[Evidence], theirs: list[Evidence]) -> tuple[Gain | None, str]:
    sums, base = ([read_sums(study.root, one.run) for one in group] for group in (ours, theirs))
    if any(one is None for one in (*sums, *base)):
        return None, "per_image.npz is missing or damaged"
    pairs = [(mine, other) for mine, other in zip(sums, base, strict=True) if mine and other]
    if any(mine.ids != other.ids or mine.label.shape != other.label.shape for mine, other in pairs):
        return None, "scored on other images than the student without teacher"
    from segkd.evaluation.stats import paired_gain_interval

    protocol = ours[0].evaluation["protocol"] if ours[0].evaluation else {"absent_classes": "nan"}
    absent: Any = protocol.get("averaged_over") or protocol["absent_classes"]
    mean, low, high = paired_gain_interval(
        [mine.sums for mine, _ in pairs], [other.sums for _, other in pairs], resamples=RESAMPLES, seed=0, absent=absent
    )
    if math.isnan(mean + low + high):
        return None, "no class occurs in label or prediction"
    seeds = zip(ours, theirs, strict=True)
    differences = tuple(PERCENT * ((a.score("miou") or 0.0) - (b.score("miou") or 0.0)) for a, b in seeds)
    return Gain(PERCENT * mean, PERCENT * low, PERCENT * high, len(pairs), differences), ""
