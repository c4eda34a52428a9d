"""Does a published number hold? One rule, stated on every page that uses it."""

from __future__ import annotations

from dataclasses import dataclass

from segkd.config.study import Published
from segkd.report.estimate import Estimate

TOLERANCE = 0.5  # points: what two trainings of the same code differ by anyway
WIDEST = 2.0  # points: a wider interval is no evidence that a number was met
_ROUNDING = 1e-9  # points: far below anything printed, above what adding floats loses

RULE = (
    "Published value p with spread s (the paper's standard deviation, 0 where it gives none), tolerance "
    f"t = max({TOLERANCE} points, s); reproduced mean over n seeds with its 95 % t-interval I. "
    "higher, lower: I lies wholly above, below [p - t, p + t]. "
    f"reproduced: I meets [p - t, p + t] and is at most {WIDEST:g} points wide. "
    "uncertain: I meets it but is wider, or n = 1. "
    "not comparable: split, server or protocol differs, ImageNet weights are missing, or the value does not come from "
    "the authors. not run: no run of the cell has been evaluated."
)


@dataclass(frozen=True)
class Verdict:
    """`word` is one of reproduced, higher, lower, uncertain, not comparable, not run; `reason` says why."""

    word: str
    reason: str = ""


def verdict(published: float, spread: float | None, reproduced: Estimate) -> Verdict:
    """Compare a published value with reproduced seeds; all values in percent, spread and intervals in points."""
    if reproduced.low is None or reproduced.high is None:
        return Verdict("uncertain", "one seed gives no interval")
    tolerance = max(TOLERANCE, spread or 0.0)
    low, high = published - tolerance, published + tolerance
    band = f"[{low:.2f}, {high:.2f}]"
    if reproduced.low > high + _ROUNDING:
        return Verdict("higher", f"the interval lies above {band}")
    if reproduced.high < low - _ROUNDING:
        return Verdict("lower", f"the interval lies below {band}")
    width = reproduced.high - reproduced.low
    if width > WIDEST + _ROUNDING:
        return Verdict("uncertain", f"the interval meets {band} but is {width:.2f} points wide")
    return Verdict("reproduced", f"the interval meets {band}")


def incomparable(published: Published, split: str | None) -> str:
    """Why a published value cannot be compared with a score on `split`; empty where it can."""
    if not published.comparable:
        return published.note or "the study says that split, server or protocol differ"
    if published.confidence != "authors":
        return f"the value does not come from the authors ({published.confidence})"
    if split is not None and published.split != split:
        return f"published on {published.split}, scored on {split}"
    return ""


def judge(published: Published | None, reproduced: Estimate | None, split: str | None, missing: str) -> Verdict | None:
    """Verdict on a cell; None where nothing was published. `missing`: why there is no number, if there is none."""
    if published is None:
        return None
    if reproduced is None:
        return Verdict("not run", missing)
    if reason := incomparable(published, split):
        return Verdict("not comparable", reason)
    return verdict(published.miou, published.spread, reproduced)
