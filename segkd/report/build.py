"""The report of a study: reports/<study>/{index.html, table.md, table.csv, metrics.json, figures/*.svg}."""

from __future__ import annotations

from pathlib import Path

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import REPORTS
from segkd.config.study import Study
from segkd.files import atomic_write, write_json
from segkd.report.charts import class_map, cost_plot, gain_plot
from segkd.report.collect import collect
from segkd.report.curves import curve_plot
from segkd.report.grids import grid
from segkd.report.page import render
from segkd.report.rows import TableRows, study_rows
from segkd.report.tables import metrics_json, table_csv, table_markdown


def report(study: str, params: Params | None = None, root: Path = Path(), *, definition: Study | None = None) -> Path:
    """Write a study's report from the files of its runs under `root`; returns that folder.

    `params` and `definition` default to root/params.yaml and root/workflow/studies/<study>.yaml. Runs that lack are
    named on the page and leave their cells empty. Equal inputs give equal bytes; index.html is written last.
    """
    params = params or load_params(root / "params.yaml")
    definition = definition or load_study(study, root / "workflow/studies")
    evidence = collect(study, definition, params, root)
    tables = study_rows(evidence)
    figures = {table.name: _figures(table, root) for table in tables}
    page = render(evidence, tables, figures, {table.name: grid(table, root) for table in tables})
    out = root / REPORTS / study
    _write_figures(out / "figures", figures)
    atomic_write(out / "table.csv", table_csv(tables))
    atomic_write(out / "table.md", table_markdown(definition.title, tables))
    write_json(out / "metrics.json", metrics_json(tables))
    atomic_write(out / "index.html", page)
    return out


def _figures(table: TableRows, root: Path) -> dict[str, str]:
    """SVG per kind; a figure without anything to show is left out."""
    drawn = {"gain": gain_plot(table), "classes": class_map(table)}
    drawn |= {"curves": curve_plot(table, root), "cost": cost_plot(table)}
    return {kind: svg for kind, svg in drawn.items() if svg}


def _write_figures(folder: Path, figures: dict[str, dict[str, str]]) -> None:
    """One file per table and figure; what an earlier report drew and this one does not is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{table}-{kind}.svg": svg for table, kinds in figures.items() for kind, svg in kinds.items()}
    for old in folder.glob("*.svg"):
        if old.name not in wanted:
            old.unlink()
    for name, svg in wanted.items():
        atomic_write(folder / name, svg)
