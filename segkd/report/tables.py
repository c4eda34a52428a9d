"""The study's table for machines and for reading in a terminal: table.csv, table.md, metrics.json."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from segkd.config.study import Published
from segkd.report import text
from segkd.report.estimate import Estimate
from segkd.report.published_gains import PublishedGain
from segkd.report.rows import Row, TableRows, gain_verdicts, verdicts
from segkd.report.verdict import GAIN_RULE, GAIN_TEST, RULE, Verdict

DIGITS = 6


def table_csv(tables: Sequence[TableRows]) -> str:
    """All rows, one line each. Scores in percent, gains in points, seconds, bytes; no number is an empty field."""
    out = io.StringIO()
    lines = [_record(table, row) for table in tables for row in table.rows]
    writer = csv.DictWriter(out, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _field(value) for name, value in line.items()} for line in lines)
    return out.getvalue()


def _record(table: TableRows, row: Row) -> dict[str, Any]:
    run, published = row.entry.run, row.entry.published
    record: dict[str, Any] = {"table": table.name, "key": row.key, "role": _role(row), "recipe": run.recipe}
    record |= {
        "method": row.entry.cell.method,
        "preset": row.entry.preset,
        "student": run.network,
        "teacher": run.teacher,
    }
    record |= {"n": len(row.entry.scored), "seeds_expected": len(row.entry.evidence)}
    record |= {"miou": row.miou and row.miou.mean} | _spread("miou", row.miou)
    record |= {"gain": row.gain and row.gain.mean, "gain_low": row.gain and row.gain.low}
    record |= {"gain_high": row.gain and row.gain.high, "gain_words": row.gain.words if row.gain else row.no_gain}
    record |= {"pixel_accuracy": _mean(row.pixel_accuracy), "class_accuracy": _mean(row.class_accuracy)}
    record |= {"boundary_iou": _mean(row.boundary_iou)}
    record |= {"ece": _mean(row.ece), "best_on_val_miou": _mean(row.best_miou)}
    record |= {"parameters": row.parameters, "flops": row.flops, "train_seconds": _mean(row.seconds)}
    record |= {"pretraining_seconds": row.pretraining_seconds, "peak_memory_bytes": row.peak_bytes}
    record |= _published(published) | {"compared_miou": _mean(row.compared) if published else None}
    record |= {"verdict": row.verdict and row.verdict.word, "reason": row.verdict and row.verdict.reason}
    record |= _published_gain(row.published_gain)
    record |= {"missing": row.entry.missing, "flags": "; ".join(row.flags)}
    return record | {"runs": " ".join(one.run.name for one in row.entry.evidence)}


def _published(found: Published | None) -> dict[str, Any]:
    names = ("miou", "spread", "class_accuracy", "split", "selection", "source", "confidence", "note")
    values = {f"published_{name}": getattr(found, name) if found else None for name in names}
    return {"published": values.pop("published_miou")} | values


def _published_gain(found: PublishedGain | None) -> dict[str, Any]:
    """`paired_gain`: over seeds alone, as the published gain asks for; `gain_p_holm`: corrected within the table."""
    record: dict[str, Any] = {"published_gain": found and found.points}
    record |= {"paired_gain": found and _mean(found.reproduced)}
    record |= _spread("paired_gain", found.reproduced if found else None)
    record |= {"gain_p_holm": found and found.p, "gain_verdict": found and found.verdict.word}
    return record | {"gain_reason": found and found.verdict.reason}


def _role(row: Row) -> str:
    if row.entry.is_teacher:
        return "teacher"
    return "released" if row.entry.released else "baseline" if row.is_baseline else "student"


def _mean(value: Estimate | None) -> float | None:
    return value.mean if value else None


def _spread(name: str, value: Estimate | None) -> dict[str, float | None]:
    parts = (value.sd, value.low, value.high) if value else (None, None, None)
    return dict(zip((f"{name}_sd", f"{name}_low", f"{name}_high"), parts, strict=True))


def _field(value: Any) -> Any:
    """A CSV field; text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def metrics_json(tables: Sequence[TableRows]) -> dict[str, float]:
    """Flat numbers for `dvc metrics`: <row>.miou, <row>.gain, ... in percent and points, rounded to 6 digits.

    verdicts.<word> and gain_verdicts.<word> count the published values and gains that have this verdict.
    """
    metrics: dict[str, float] = {}
    for row in (row for table in tables for row in table.rows):
        values: dict[str, float | None] = {"miou": _mean(row.miou)} | _spread("miou", row.miou)
        if row.gain:
            values |= {"gain": row.gain.mean, "gain_low": row.gain.low, "gain_high": row.gain.high}
        values |= {"pixel_accuracy": _mean(row.pixel_accuracy), "boundary_iou": _mean(row.boundary_iou)}
        values |= {"ece": _mean(row.ece), "best_on_val_miou": _mean(row.best_miou), "parameters": row.parameters}
        values |= {"n": len(row.entry.scored)}
        metrics |= {f"{row.key}.{name}": round(value, DIGITS) for name, value in values.items() if value is not None}
    counts = {"verdicts": verdicts(tables), "gain_verdicts": gain_verdicts(tables)}
    return metrics | {f"{kind}.{word}": number for kind, words in counts.items() for word, number in words.items()}


def table_markdown(title: str, tables: Sequence[TableRows]) -> str:
    """The tables for reading as text; everything that came from a file is escaped."""
    parts = [f"# {_escape(title)}\n"]
    for table in tables:
        parts.append(f"## {_escape(table.title)}\n")
        head = [
            "method",
            "student",
            "mIoU (%)",
            "95 % interval",
            "n",
            "gain (points)",
            "95 % interval",
            "",
            "pixel acc. (%)",
        ]
        head += ["boundary IoU (%)", "ECE (%)", "best on val (%)", "params", "FLOPs", "training"]
        head += ["published (%)", "verdict"] * table.judged
        head += ["published gain", "gain verdict", "p (gain > 0)"] * table.gains_judged
        lines = [head, ["---"] * len(head), *(_cells(row, table) for row in table.rows)]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
        flags = [f"- {_escape(flag)}" for flag in table.flags]
        parts += ["Mind:\n\n" + "\n".join(flags) + "\n"] * bool(flags)
    parts += [f"Verdicts. {_escape(RULE)}\n"] * any(table.judged for table in tables)
    parts += [f"Gains. {_escape(GAIN_RULE)} {_escape(GAIN_TEST)}\n"] * any(table.gains_judged for table in tables)
    return "\n".join(parts)


def _cells(row: Row, table: TableRows) -> list[str]:
    gain, run = row.gain, row.entry.run
    preset = f" ({row.entry.preset})" if row.entry.preset else ""
    cells = [_escape(row.label + preset), _escape(run.network), text.plus_minus(row.miou)]
    cells += [text.interval(row.miou.low, row.miou.high) if row.miou else ""]
    cells += [_escape(str(len(row.entry.scored)) + (f" ({row.entry.missing})" if row.entry.missing else ""))]
    cells += [text.signed(gain.mean) if gain else text.DASH]
    cells += [text.interval(gain.low, gain.high, sign=True) if gain else ""]
    cells += [gain.words if gain else _escape(row.no_gain)]
    cells += [text.number(_mean(one)) for one in (row.pixel_accuracy, row.boundary_iou, row.ece, row.best_miou)]
    cells += [text.count(row.parameters), text.flops(row.flops), text.duration(_mean(row.seconds))]
    if table.judged:
        published = row.entry.published
        cells += [text.number(published.miou if published else None), _words(row.verdict)]
    if table.gains_judged:
        gained = row.published_gain
        cells += [text.signed(gained.points) if gained else text.DASH, _words(gained.verdict if gained else None)]
        cells += [text.probability(gained.p if gained else None)]
    return cells


def _words(found: Verdict | None) -> str:
    return _escape(": ".join(filter(None, (found.word, found.reason)))) if found else ""


def _escape(value: str) -> str:
    """Markdown text that stays text: no markup, no HTML, no new cell or line."""
    flat = " ".join(value.split())
    return re.sub(r"([\\`*_{}\[\]<>|#])", lambda found: {"<": "&lt;", ">": "&gt;"}.get(found[1], "\\" + found[1]), flat)
