"""Which runs are left out because they cannot be made here: decided once, recorded for jobs and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock

from segkd.availability.needed import Thing, needed
from segkd.availability.obstacles import obstacles
from segkd.config.load import load_study
from segkd.config.params import Params
from segkd.config.runs import RELEASED, Run, cell_runs, study_runs
from segkd.config.study import Checkpoint, Study
from segkd.errors import DataError
from segkd.files import read_json, write_json
from segkd.plan import STUDIES, study_names

MISSING = Path("data/receipts/missing.json")
FORMAT = 1
Occasion = Literal["run", "dry run", "other"]


@dataclass(frozen=True)
class Need:
    """Something that cannot be had here: why, what to do about it, and the studies that wait for it."""

    what: str
    why: str
    to_do: str
    studies: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why a run that lacks it cannot be made, as in `Missing.runs`, where several are joined."""
        return f"{self.what}: {self.why}"


def listed(needs: Iterable[Need]) -> str:
    """The list for a person."""
    return "\n".join(f"  - {one.reason}\n    for:   {', '.join(one.studies)}\n    to do: {one.to_do}" for one in needs)


@dataclass(frozen=True)
class Missing:
    """Reason per name of a run that cannot be made here, and the needs behind them."""

    runs: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()


def find(params: Params, studies: Mapping[str, Study], root: Path = Path()) -> Missing:
    """What the unfinished runs of these studies need and cannot have, found out now.

    Hosts are asked only where something must be fetched, all at once and for 3 seconds.
    """
    wanted = {
        name: {run: needed(params, run, root) for run in study_runs(params, study)} for name, study in studies.items()
    }
    things = frozenset[Thing]().union(*(own for runs in wanted.values() for own in runs.values()))
    needs: dict[Thing, Need] = {}
    for thing, one in obstacles(params, things, _checkpoints(studies.values()), root).items():
        waiting = tuple(name for name, runs in wanted.items() if any(thing in own for own in runs.values()))
        needs[thing] = Need(one.what, one.why, one.to_do, waiting)
    lacking = {run: sorted(own & needs.keys()) for runs in wanted.values() for run, own in runs.items()}
    reasons = {run.name: "; ".join(needs[thing].reason for thing in own) for run, own in sorted(lacking.items()) if own}
    return Missing(reasons, tuple(needs.values()))


def _checkpoints(studies: Iterable[Study]) -> dict[str, Checkpoint]:
    """What is to be imported, by name of its run."""
    cells = [(study, cell) for study in studies for table in study.tables for cell in table.cells]
    return {run.name: cell.checkpoint for study, cell in cells if cell.checkpoint for run in cell_runs(study, cell)}


@dataclass(frozen=True)
class Decision:
    """What is left out of the building of some studies.

    checked: their runs, by name; found: what of these cannot be had; left_out: reason per run that is left out.
    """

    occasion: Occasion
    studies: tuple[str, ...]
    checked: frozenset[str]
    found: Missing
    left_out: Mapping[str, str]

    @property
    def message(self) -> str:
        """What is to be said before anything starts; empty where all can be had, or where it was said before."""
        if self.occasion == "other" or not self.found.needs:
            return ""
        count = len(self.found.runs)
        what = "would be left out" if self.occasion == "dry run" else "are left out"
        return (
            f"Not to be had on this machine:\n{listed(self.found.needs)}\n"
            f"{count} run{'s' * (count != 1)} {what}, and shown as `not run` with the reason; everything else goes on."
        )

    def reasons(self, runs: Iterable[Run]) -> dict[str, str]:
        """Why those of these runs that are left out are."""
        return {run.name: self.left_out[run.name] for run in sorted(runs) if run.name in self.left_out}


def decide(params: Params, studies: Mapping[str, Study], occasion: Occasion, root: Path = Path()) -> Decision:
    """Which runs of the studies are left out.

    run: those that cannot be made, found out now. dry run: everything is planned, but for checkpoints to be imported,
    which no step makes. other (a job of a running workflow, a look at a finished one): what was recorded, so that all
    agree with the run.
    """
    runs = {run for study in studies.values() for run in study_runs(params, study)}
    found = read(root) if occasion == "other" else find(params, studies, root)
    left_out = found.runs
    if occasion == "dry run":
        absent = {run.name for run in runs if run.method == RELEASED and not (root / run.folder / "run.json").exists()}
        left_out = {name: why for name, why in left_out.items() if name in absent}
    return Decision(occasion, tuple(studies), frozenset(run.name for run in runs), found, left_out)


class Ledger:
    """What one workflow leaves out: decided when it is first asked for, said at once, recorded when the work starts.

    chosen: the studies that are built together; `occasion` is asked late, since Snakemake knows it late.
    """

    def __init__(
        self, params: Params, chosen: tuple[str, ...], occasion: Callable[[], Occasion], say: Callable[[str], None]
    ) -> None:
        self._params, self._chosen, self._occasion, self._say = params, chosen, occasion, say
        self._decisions: dict[tuple[str, ...], Decision] = {}

    def left_out(self, study: str) -> dict[str, str]:
        """Reason per run of a study that is left out."""
        names = self._chosen if study in self._chosen else (study,)
        if names not in self._decisions:
            self._decisions[names] = decide(self._params, {name: load_study(name) for name in names}, self._occasion())
            if message := self._decisions[names].message:
                self._say(message)
        return self._decisions[names].reasons(study_runs(self._params, load_study(study)))

    def record(self) -> None:
        """Write down what was decided, for the jobs of this workflow and for reports."""
        for decision in self._decisions.values():
            record(decision)


def read(root: Path = Path()) -> Missing:
    """What was recorded last; nothing where nothing was. DataError where the file is damaged."""
    path = root / MISSING
    if not path.exists():
        return Missing()
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} has another format: delete it and start snakemake again")
    return Missing(
        content["runs"], tuple(Need(**{**need, "studies": tuple(need["studies"])}) for need in content["needs"])
    )


def record(decision: Decision, root: Path = Path()) -> None:
    """Put what was decided for a run into data/receipts/missing.json, where its jobs and the reports read it.

    What was recorded for other studies that there still are stays. Nothing is written where nothing changes.
    """
    if decision.occasion != "run":
        return
    place = root / MISSING
    if not place.exists() and not decision.found.needs:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "data" / ".missing.lock"):
        before = read(root)
        after = _merged(before, decision, set(study_names(root / STUDIES)) - set(decision.studies))
        if after != before:
            write_json(place, {"format": FORMAT, "runs": after.runs, "needs": [asdict(need) for need in after.needs]})


def _merged(before: Missing, decision: Decision, others: AbstractSet[str]) -> Missing:
    """What is new of the decision's studies, and what was known of the others."""
    runs = {name: why for name, why in before.runs.items() if name not in decision.checked} | dict(decision.found.runs)
    kept = [replace(need, studies=tuple(name for name in need.studies if name in others)) for need in before.needs]
    needs = {need.what: need for need in kept if need.studies}
    for need in decision.found.needs:
        waiting = needs[need.what].studies if need.what in needs else ()
        needs[need.what] = replace(need, studies=tuple(sorted({*waiting, *need.studies})))
    return Missing(dict(sorted(runs.items())), tuple(needs[what] for what in sorted(needs)))
