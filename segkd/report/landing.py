"""reports/index.html: the score over all papers, built or not, and what stands between them and a number here."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import REPORTS, Run
from segkd.config.study import Study
from segkd.errors import ConfigError
from segkd.files import atomic_write
from segkd.report.collect import collect
from segkd.report.contradictions import contradictions
from segkd.report.evidence import Evidence
from segkd.report.missing import Missing, read_missing
from segkd.report.page import environment
from segkd.report.rows import TableRows, gain_verdicts, study_rows, verdicts
from segkd.report.summary import listed
from segkd.report.verdict import GAIN_RULE, GAIN_TEST, GAIN_WORDS, RULE, WORDS

STUDIES = Path("workflow/studies")


@dataclass(frozen=True)
class StudyScore:
    """A study with its verdicts. `page` is relative to reports/, empty where the study has not been built here."""

    name: str
    study: Study
    tables: tuple[TableRows, ...]
    page: str

    @property
    def words(self) -> Counter[str]:
        """Published values per verdict."""
        return verdicts(self.tables)

    @property
    def gains(self) -> Counter[str]:
        """Published gains per verdict."""
        return gain_verdicts(self.tables)

    @property
    def first_sentence(self) -> str:
        """How its description begins."""
        return re.split(r"(?<=[.!?])\s", self.study.about, maxsplit=1)[0]

    @property
    def command(self) -> str:
        """What builds its page."""
        return f"snakemake --cores all {'--resources gpu=1 ' if self.study.needs == 'gpu' else ''}{self.name}"


def landing(root: Path = Path()) -> Path:
    """Write reports/index.html from params.yaml, all studies and the files of their runs; returns its path.

    Works before anything was built, and goes on without studies that cannot be used, which it names. Reads the same
    files by the same code as the studies' pages. Equal inputs give equal bytes.
    """
    params = load_params(root / "params.yaml")
    missing = read_missing(root)
    scores, faults = _scores(params, root, missing)
    page = (
        environment()
        .get_template("landing.html")
        .render(
            finding=_finding(scores),
            papers=[one for one in scores if one.study.paper],
            others=[one for one in scores if not one.study.paper],
            judged=[one for one in scores if one.words],
            words=sum((one.words for one in scores), Counter()),
            gains=sum((one.gains for one in scores), Counter()),
            WORDS=WORDS,
            GAIN_WORDS=GAIN_WORDS,
            found=contradictions({one.name: one.tables for one in scores}, params),
            titles={one.name: one.study.title for one in scores},
            missing=missing,
            faults=faults,
            rule=RULE,
            gain_rule=GAIN_RULE,
            gain_test=GAIN_TEST,
        )
    )
    path = root / REPORTS / "index.html"
    atomic_write(path, page)
    return path


def _scores(params: Params, root: Path, missing: Missing) -> tuple[list[StudyScore], list[tuple[str, str]]]:
    """All studies, papers first by year, and the faults of those that cannot be used."""
    scores, faults = [], []
    seen: dict[Run, Evidence] = {}
    for name in sorted(path.stem for path in (root / STUDIES).glob("*.yaml")):
        try:
            study = load_study(name, root / STUDIES)
            evidence = collect(name, study, params, root, missing=missing, seen=seen)
        except ConfigError as error:
            faults.append((name, str(error)))
            continue
        page = f"{name}/index.html" if (root / REPORTS / name / "index.html").exists() else ""
        scores.append(StudyScore(name, study, study_rows(evidence, gains=False), page))
    return sorted(scores, key=lambda one: (one.study.paper.year if one.study.paper else 9999, one.name)), faults


def _finding(scores: list[StudyScore]) -> str:
    """The page's first sentence."""
    words, gains = (sum(counts, Counter()) for counts in ([one.words for one in scores], [one.gains for one in scores]))
    if not words:
        return "No study here names a published number."
    studies = sum(1 for one in scores if one.words)
    first = f"{_some(words.total(), 'published number')} in {_some(studies, 'study', 'studies')}"
    second = f" {_some(gains.total(), 'published gain')}: {listed(gains, GAIN_WORDS)}." if gains else ""
    return f"{first}: {listed(words, WORDS)}.{second}"


def _some(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or f'{one}s'}"
