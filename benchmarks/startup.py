"""How long the command line takes before a verb's own work begins: python -m benchmarks.startup --help.

Every row is a fresh process. A verb's own work begins where segkd.cli calls its step; what the step then needs (torch,
for most) belongs to it. The last column is the whole way to the answer that a name does not exist. Targets are held
against processor time: starting neither waits nor uses a second core, so the clock shows the same on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from benchmarks.losses import ROOT, machine
from segkd.cli import app

HELP, VERB = 0.3, 1.0  # seconds, targets
RUN = "nowhere/small/none/seed0"
COMMAND = "from segkd.cli import main; main()"
# every step ends at once where it is called
UNTIL_STEP = """
import sys, types
from segkd import steps
for name, value in list(vars(steps).items()):
    if isinstance(value, types.FunctionType) and value.__module__ == steps.__name__ and not name.startswith("_"):
        setattr(steps, name, lambda *_, **__: sys.exit(86))
from segkd.cli import main
main()
"""
REACHED, REFUSED = 86, 2  # exit codes
HEADER = (
    "command | until its work begins: processor s (clock s) | target | met | "
    "until a wrong name is answered: processor s (clock s)"
)
NOTE = (
    "Median of {repeat} fresh processes each, files in the system's cache; of the processor, in brackets of the clock."
)


class Taken(NamedTuple):
    """Seconds of one process: of the clock, of the processor."""

    clock: float
    processor: float

    def __str__(self) -> str:
        return f"{self.processor:.2f} ({self.clock:.2f})"


def verbs() -> dict[str, list[str]]:
    """Every verb with words that it accepts: its required arguments, none of which exists."""
    found: dict[str, list[str]] = {}

    def walk(command: Any, before: tuple[str, ...]) -> None:
        for name, child in sorted(getattr(command, "commands", {}).items()):
            walk(child, (*before, name))
        if not hasattr(command, "commands"):
            found[" ".join(before)] = [word for one in command.params if one.required for word in _words(one)]

    walk(typer.main.get_command(app), ())
    return found


def _words(parameter: Any) -> list[str]:
    value = RUN if parameter.name == "run" else "nowhere"
    return [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]


def taken(code: str, words: list[str], folder: Path, expected: int) -> Taken:
    """One process. RuntimeError where it does not end as expected: then something else was measured."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expected:
        said = (done.stdout + done.stderr)[-600:]
        raise RuntimeError(f"{' '.join(words) or code!r} ended with {done.returncode}, expected {expected}: {said}")
    return Taken(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def middle(code: str, words: list[str], folder: Path, expected: int, repeat: int) -> Taken:
    """Medians of some processes, after one that is not counted."""
    every = [taken(code, words, folder, expected) for _ in range(1 + repeat)][1:]
    return Taken(*(statistics.median(column) for column in zip(*every, strict=True)))


def row(name: str, words: list[str], folder: Path, repeat: int) -> str:
    """A verb's line."""
    begun = middle(UNTIL_STEP, [*name.split(), *words], folder, REACHED, repeat)
    answer = middle(COMMAND, [*name.split(), *words], folder, REFUSED, repeat) if words else ""
    met = "yes" if begun.processor < VERB else "NO"
    return f"| segkd {name} | {begun} | < {VERB:g} | {met} | {answer} |"


def table(chosen: dict[str, list[str]], repeat: int) -> Iterator[str]:
    """The table, line by line as it is measured."""
    yield machine("cpu")
    yield ""
    yield f"| {HEADER} |"
    yield "|" + "---|" * (HEADER.count("|") + 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copy(ROOT / "params.yaml", folder)
        shutil.copytree(ROOT / "workflow/studies", folder / "workflow/studies")
        for name, code in (("python", "pass"), ("import torch, for comparison", "import torch")):
            yield f"| {name} | {middle(code, [], folder, 0, repeat)} | | | |"
        shown = middle(COMMAND, ["--help"], folder, 0, repeat)
        yield f"| segkd --help | {shown} | < {HELP:g} | {'yes' if shown.processor < HELP else 'NO'} | |"
        for name, words in chosen.items():
            yield row(name, words, folder, repeat)
    yield ""
    yield NOTE.format(repeat=repeat)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="VERB", help="this verb; may be repeated")
    parser.add_argument("--repeat", type=int, default=5, help="processes of each that count")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    options, known = arguments(words), verbs()
    unknown = [name for name in options.only if name not in known]
    if unknown:
        there = ", ".join(known)
        raise SystemExit(f"python -m benchmarks.startup: no verb is called {', '.join(unknown)}; there are: {there}")
    for line in table({name: known[name] for name in options.only or known}, options.repeat):
        print(line, flush=True)


if __name__ == "__main__":
    main()
