"""Does a published number hold? One rule, stated on every page that uses it."""

from __future__ import annotations

from dataclasses import dataclass

from segkd.config.study import Published
from segkd.report import text
from segkd.report.estimate import Estimate

TOLERANCE = 0.5  # points: what two trainings of the same code differ by anyway
WIDEST = 2.0  # points: a wider interval is no evidence that a number was met
NO_BEST = "published for the checkpoint that was best on val, and none was kept here (evaluation.select_every)"
_ROUNDING = 1e-9  # points: far below anything printed, above what adding floats loses

WORDS = ("reproduced", "higher", "lower", "uncertain", "not comparable", "not run")
GAIN_WORDS = ("gain reproduced", "gain larger", "gain smaller", "uncertain", "not comparable", "not run")

RULE = (
    "Published value p with spread s (the paper's standard deviation, 0 where it gives none), tolerance "
    f"t = max({TOLERANCE} points, s); reproduced mean over n seeds with its 95 % t-interval I. "
    "higher, lower: I lies wholly above, below [p - t, p + t]. "
    f"reproduced: I meets [p - t, p + t] and is at most {WIDEST:g} points wide. "
    "uncertain: I meets it but is wider, or n = 1. "
    "not comparable: split, server or protocol differs, ImageNet weights are missing, or the value does not come from "
    "the authors. not run: no run of the cell has been evaluated. "
    "Where the published number is that of the checkpoint that was best on val, ours is chosen so too."
)

GAIN_RULE = (
    "Published gain g: the method's published value less that of the same student alone, of one split and recipe (of "
    "the same table, or where that has none, of another table of the study). Reproduced gain: our difference, paired "
    "by seed, with its 95 % t-interval J over the n seeds that both have. "
    f"gain reproduced: J covers g and is at most {WIDEST:g} points wide. "
    "gain larger, gain smaller: J lies wholly above, below g. "
    "uncertain: J covers g but is wider, or n = 1. "
    "not comparable: one of the two values is not, or they were selected in different ways. "
    "not run: no seed has been evaluated with the method and without."
)

GAIN_TEST = (
    "p: is there a gain at all? One-sided paired t-test over the n seeds, corrected by Holm for the number of tests in "
    "the table. With two or three seeds it is weak: a large p does not say that there is no gain."
)


@dataclass(frozen=True)
class Verdict:
    """`word` is one of WORDS, or of GAIN_WORDS where a gain is judged; `reason` says why."""

    word: str
    reason: str = ""


def tone(word: str) -> str:
    """The word of WORDS that a verdict is coloured as, with hyphens: a larger gain as higher."""
    alike = dict(zip(GAIN_WORDS, WORDS, strict=True))
    return alike.get(word, word).replace(" ", "-")


def verdict(published: float, spread: float | None, reproduced: Estimate) -> Verdict:
    """Compare a published value with reproduced seeds; all values in percent, spread and intervals in points."""
    tolerance = max(TOLERANCE, spread or 0.0)
    low, high = published - tolerance, published + tolerance
    return _compare(reproduced, low, high, ("reproduced", "higher", "lower"), f"[{low:.2f}, {high:.2f}]")


def gain_verdict(published: float, reproduced: Estimate) -> Verdict:
    """Compare a published gain with reproduced differences over seeds, all in points."""
    words = ("gain reproduced", "gain larger", "gain smaller")
    found = _compare(reproduced, published, published, words, text.signed(published))
    if found.word == words[0] and reproduced.low is not None and reproduced.low <= 0 <= (reproduced.high or 0):
        return Verdict(found.word, f"{found.reason}, and zero as well")
    return found


def _compare(found: Estimate, low: float, high: float, words: tuple[str, str, str], target: str) -> Verdict:
    """Where the interval of `found` lies to [low, high]; `words`: it meets it, lies above, lies below."""
    if found.low is None or found.high is None:
        return Verdict("uncertain", f"n = 1 gives no interval ({text.signed(found.mean - (low + high) / 2)} points)")
    if found.low > high + _ROUNDING:
        return Verdict(words[1], f"the interval lies above {target}")
    if found.high < low - _ROUNDING:
        return Verdict(words[2], f"the interval lies below {target}")
    meets = f"the interval {'meets' if low < high else 'covers'} {target}"
    width = found.high - found.low
    if width > WIDEST + _ROUNDING:
        return Verdict("uncertain", f"{meets} but is {width:.2f} points wide")
    return Verdict(words[0], meets)


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
    """Verdict on a cell; None where nothing was published.

    `reproduced` is what the published value asks for (`selection`); `split` the one that was scored, None where nothing
    was; `missing` says why there is no number, if there is none.
    """
    if published is None:
        return None
    if reproduced is None and split is None:
        return Verdict("not run", missing)
    if reason := incomparable(published, split):
        return Verdict("not comparable", reason)
    if reproduced is None:
        return Verdict("not comparable", NO_BEST if published.selection == "best" else "no mIoU was scored")
    return verdict(published.miou, published.spread, reproduced)
