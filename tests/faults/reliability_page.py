"""docs/reliability.md from the tests' markers: `python -m tests.faults.reliability_page` rewrites its generated parts.

A fault is a test marked `@pytest.mark.fault("P4", "what goes wrong, one line")`; each parametrised case of it counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reliability.md"
COMMAND = "python -m tests.faults.reliability_page"
PROMISES = tuple(f"P{number}" for number in range(1, 8))
FEWEST = 60
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, order=True)
class Fault:
    """One marked test: the promise it tests, where it stands, what goes wrong in it, and in how many cases."""

    promise: str
    file: str
    what: str
    test: str
    cases: int = field(default=1, compare=False)


class Collector:
    """A pytest plugin that keeps the markers of what is collected."""

    def __init__(self) -> None:
        self.counts: dict[Fault, int] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Count the cases of every marked test."""
        for item in items:
            for mark in item.iter_markers("fault"):
                promise, what = mark.args
                file = item.path.relative_to(ROOT).as_posix()
                fault = Fault(
                    promise, file, what, item.originalname if isinstance(item, pytest.Function) else item.name
                )
                self.counts[fault] = self.counts.get(fault, 0) + 1

    def faults(self) -> list[Fault]:
        """Sorted by promise, file and words: the page does not depend on the order of tests."""
        return [Fault(one.promise, one.file, one.what, one.test, cases) for one, cases in sorted(self.counts.items())]


def collect() -> list[Fault]:
    """All faults of the test suite; only files with the marker are imported. RuntimeError where one cannot be."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.fault(" in path.read_text("utf-8")]
    collector, said = Collector(), io.StringIO()
    words = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={ROOT}", "-c"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main([*words, str(ROOT / "pyproject.toml"), *map(str, files)], plugins=[collector])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest cannot collect the tests:\n{said.getvalue()[-4000:]}")
    return collector.faults()


def slips(faults: Iterable[Fault]) -> list[str]:
    """What is wrong with the markers as a whole: unknown promises, promises without a test, too few faults."""
    found = list(faults)
    wrong = [
        f"{one.file}: {one.test}: there is no promise {one.promise}" for one in found if one.promise not in PROMISES
    ]
    tested = {one.promise for one in found}
    wrong += [f"{promise} has no test" for promise in PROMISES if promise not in tested]
    wrong += [f"{one.file}: {one.test}: says nothing" for one in found if not one.what.strip()]
    if (count := len(found)) < FEWEST:
        wrong.append(f"{count} faults, at least {FEWEST} are promised")
    return wrong


def rendered(page: str, faults: list[Fault]) -> str:
    """The page with its generated parts made anew; the words around them stay. ValueError where a part is missing."""
    parts = {"count": _count(faults)} | {one: _table([f for f in faults if f.promise == one]) for one in PROMISES}
    found = [match[1] for match in PART.findall(page)]
    if sorted(found) != sorted(parts):
        raise ValueError(f"{PAGE.name} must hold each of these generated parts once: {', '.join(parts)}; found {found}")
    return PART.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", page)


def _count(faults: list[Fault]) -> str:
    lines = ["| promise | faults | cases |", "|---|---:|---:|"]
    for promise in PROMISES:
        mine = [one for one in faults if one.promise == promise]
        lines.append(f"| {promise} | {len(mine)} | {sum(one.cases for one in mine)} |")
    return "\n".join([*lines, f"| **all** | **{len(faults)}** | **{sum(one.cases for one in faults)}** |"])


def _table(faults: list[Fault]) -> str:
    lines = ["| what goes wrong | test | cases |", "|---|---|---:|"]
    for one in faults:
        what = one.what.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {what} | [{one.test}](../{one.file}) | {one.cases} |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """Rewrite the page, or with --check say what is wrong; returns 0, or 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the page is not current")
    check = parser.parse_args(words).check
    faults = collect()
    wrong, before = slips(faults), PAGE.read_text(encoding="utf-8")
    after = rendered(before, faults)
    if check and after != before:
        wrong.append(f"docs/reliability.md is stale: {COMMAND}")
    if not check and after != before:
        PAGE.write_text(after, encoding="utf-8")
    sys.stdout.write("\n".join([*wrong, f"{len(faults)} faults, {sum(one.cases for one in faults)} cases"]) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
