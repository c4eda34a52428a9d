"""What was found, in one or two plain sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segkd.report import text
from segkd.report.rows import Row, TableRows, gain_verdicts, verdicts
from segkd.report.verdict import GAIN_WORDS, WORDS


def summary(tables: Sequence[TableRows]) -> str:
    """The page's first sentence: scores, gain and number of seeds, or how far the study is."""
    rows = list({row.key: row for table in tables for row in table.rows}.values())
    done = sum(len(row.entry.scored) for row in rows)
    planned = sum(len(row.entry.evidence) for row in rows)
    if not done:
        nothing = f"Nothing has been measured yet: none of the study's {planned} runs has been evaluated."
        return " ".join([nothing, *_against(tables)])
    sentences = [_finding(rows)]
    if done < planned:
        sentences.append(f"{planned - done} of {planned} runs are still missing.")
    return " ".join([*sentences, *_against(tables)])


def _against(tables: Sequence[TableRows]) -> list[str]:
    """What became of the published values and gains."""
    values = (verdicts(tables), WORDS, "Against the published values")
    gains = (gain_verdicts(tables), GAIN_WORDS, "Published gains")
    return [f"{subject}: {listed(found, words)}." for found, words, subject in (values, gains) if found]


def listed(counts: Counter[str], words: Sequence[str]) -> str:
    """`2 reproduced, 1 not run`: the words that occur, in the order of `words`."""
    return ", ".join(f"{counts[word]} {word.removeprefix('gain ')}" for word in words if counts[word])


def _finding(rows: Sequence[Row]) -> str:
    gains = [row for row in rows if row.gain]
    if len(gains) == 1:
        return _one(gains[0]) + _teacher(rows)
    if gains:
        return _many(gains) + _teacher(rows)
    alone = next((row for row in rows if row.is_baseline and row.miou), None)
    first = (
        f"The student without teacher reaches {_percent(alone)} mIoU" if alone and alone.miou else "Scores are there"
    )
    taught = (row for row in rows if not row.entry.is_teacher and not row.is_baseline)
    why = next((row.no_gain or row.entry.missing for row in taught), "")
    return f"{first}; no gain can be given yet" + (f" ({why})." if why else ".") + _teacher(rows)


def _one(row: Row) -> str:
    gain, name = row.gain, row.label
    if gain is None or row.miou is None:
        return ""
    size = f"{text.signed(gain.mean)} points of mIoU (95 % interval {_span(row)}, {text.seeds(gain.seeds)})"
    score = f"to {_percent(row)}"
    if gain.words == "better":
        return f"With {name} the student gains {size}, {score}."
    if gain.words == "worse":
        return f"With {name} the student becomes worse: {size}, {score}."
    return f"No gain of {name} is visible: {size}, {score}."


def _many(rows: Sequence[Row]) -> str:
    words = Counter(row.gain.words for row in rows if row.gain)
    parts = [f"{words[word]} {one if words[word] == 1 else more}" for word, one, more in _PHRASES if words[word]]
    best = max(rows, key=lambda row: row.gain.mean if row.gain else 0.0)
    seeds = sorted({row.gain.seeds for row in rows if row.gain})
    each = text.seeds(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {text.seeds(seeds[-1])}"
    gain = text.signed(best.gain.mean) if best.gain else ""
    return (
        f"Of {len(rows)} methods compared with the student without teacher ({each} each), {', '.join(parts)}. "
        f"Largest difference: {best.label} with {gain} points of mIoU (95 % interval {_span(best)})."
    )


_PHRASES = (
    ("better", "is better", "are better"),
    ("no gain visible", "shows no visible gain", "show no visible gain"),
    ("worse", "is worse", "are worse"),
)


def _span(row: Row) -> str:
    return f"{text.signed(row.gain.low)} to {text.signed(row.gain.high)}" if row.gain else ""


def _percent(row: Row) -> str:
    return f"{text.number(row.miou.mean)} %" if row.miou else text.DASH


def _teacher(rows: Sequence[Row]) -> str:
    teachers = [row for row in rows if row.entry.is_teacher and row.miou]
    return f" The teacher reaches {_percent(teachers[0])}." if len(teachers) == 1 else ""
