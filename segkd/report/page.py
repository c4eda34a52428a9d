"""The HTML page: one file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from segkd.config.study import Published
from segkd.report import provenance, text
from segkd.report.charts import class_iou
from segkd.report.collect import StudyEvidence
from segkd.report.gains import RESAMPLES
from segkd.report.grids import Grid
from segkd.report.rows import Row, TableRows
from segkd.report.summary import summary
from segkd.report.svg import inline
from segkd.report.verdict import GAIN_RULE, GAIN_TEST, RULE, tone

TEMPLATES = Path(__file__).parent / "templates"

CAPTIONS = {
    "gain": (
        "Gain over the student without teacher",
        "Difference of mIoU between each method and the same student trained alone, seeds paired. Bar: 95 % interval "
        "over seeds and images. Small strokes: single seeds. An interval that covers zero shows no gain.",
    ),
    "classes": (
        "IoU per class",
        "Percent, mean over seeds, at the end of training. Rows are methods, columns classes; a dash marks a class "
        "that occurs in neither label nor prediction.",
    ),
    "curves": ("Training", "Mean over seeds; the shade spans the lowest and highest seed."),
    "cost": (
        "Accuracy against cost",
        "mIoU with its 95 % t-interval against what a network costs to run and what it cost to train (teacher's own "
        "training not included).",
    ),
}


def render(
    study: StudyEvidence,
    tables: Sequence[TableRows],
    figures: Mapping[str, Mapping[str, str]],
    grids: Mapping[str, Grid],
) -> str:
    """The page's text. `figures`: SVG per table and kind (the keys of CAPTIONS); `grids`: pictures per table."""
    return environment().get_template("index.html").render(**_context(study, tables, figures, grids))


def environment() -> Environment:
    """Where templates are rendered: everything is escaped, a name that nobody gave is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shown = ("number", "signed", "plus_minus", "count", "flops", "size", "duration", "seeds", "probability", "prose")
    made.filters |= {name: getattr(text, name) for name in shown} | {"tone": tone}
    made.globals["interval"] = text.interval
    return made


def _context(
    study: StudyEvidence,
    tables: Sequence[TableRows],
    figures: Mapping[str, Mapping[str, str]],
    grids: Mapping[str, Grid],
) -> dict[str, Any]:
    drawn = {
        table: {kind: Markup(inline(svg, f"{table}-{kind}")) for kind, svg in kinds.items()}
        for table, kinds in figures.items()
    }
    return {
        "name": study.name,
        "study": study.study,
        "summary": summary(tables),
        "tables": tables,
        "figures": drawn,
        "captions": CAPTIONS,
        "grids": grids,
        "classes": {table.name: class_iou([row for row in table.distinct if row.miou]) for table in tables},
        "sources": [(entry, provenance.run_lines(study, entry)) for entry in study.entries],
        "facts": provenance.facts(study),
        "store": provenance.store(study.params.tracking.uri),
        "rule": RULE,
        "gain_rule": GAIN_RULE,
        "gain_test": GAIN_TEST,
        "notes": {table.name: footnotes(table.rows) for table in tables},
        "resamples": RESAMPLES,
        "judged": any(table.judged for table in tables),
        "gains_judged": any(table.gains_judged for table in tables),
    }


def footnotes(rows: Sequence[Row]) -> tuple[list[str], list[tuple[str, Published]]]:
    """Where published values come from: a mark per row (none where nothing is published), and what each mark means."""
    marks: dict[tuple[str, str, str], str] = {}
    found: dict[str, Published] = {}
    each = []
    for published in (row.entry.published for row in rows):
        if published is None:
            each.append("")
            continue
        origin = published.source, published.confidence, published.note
        mark = marks.setdefault(origin, _letters(len(marks)))
        found.setdefault(mark, published)
        each.append(mark)
    return each, list(found.items())


def _letters(place: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)
