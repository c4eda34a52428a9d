"""kill -9 at every place where something is half done, and the same command again: the bytes of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from killing import attempt, result

from segkd import steps
from segkd.config.runs import Run
from segkd.files import read_json
from segkd.tracking.journal import read

TEACHER = Run("tiny", "large")
TAUGHT = Run("tiny", "small", "kd", "large")
OWN = {"cirkd": "a memory bank", "skd": "an optimiser of its own"}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its teacher and, never disturbed, a student of each method."""
    import copy

    import yaml
    from tiny_project import TINY

    params = copy.deepcopy(TINY)
    params["datasets"]["digits"]["scenes"] = {"train": 8, "val": 4, "test": 2}
    params["recipes"]["tiny"]["batch"] = 2
    params["methods"] |= {name: {"method": name} for name in OWN}
    root = tmp_path_factory.mktemp("calm")
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    steps.download("digits", root=root)
    steps.prepare("digits", root=root)
    assert attempt(root, TEACHER) == 0
    for method in ("kd", *OWN):
        assert attempt(root, student(method)) == 0
    return root


def student(method: str) -> Run:
    return Run("tiny", "small", method, "large")


@pytest.fixture
def other(taught: Path, tmp_path: Path) -> Path:
    """The same project, in which no student was trained yet."""
    root = tmp_path / "troubled"
    shutil.copytree(taught, root, ignore=shutil.ignore_patterns("small"))
    return root


POINTS = {
    "optimiser stepped": "between the optimiser's step and the next learning rate",
    "optimiser stepped:4": "in mid-epoch",
    "updated:3": "after an update that no state holds yet",
    "journal written:2": "between journal and state",
    "renaming state-*:1": "between temporary file and rename of the first state",
    "renaming state-*:4": "between temporary file and rename of a later state",
    "state written:3": "between a new state and the removal of an old one",
    "validating": "in the middle of a validation",
    "validating:3": "in the middle of a later validation",
    "renaming best.safetensors": "while the best weights are written",
    "best written:1": "between the best weights and the state that knows them",
    "trained": "after the last update, before anything of the result",
    "renaming weights.safetensors": "between temporary file and rename of the weights",
    "weights written": "between weights and run.json",
    "renaming run.json": "between temporary file and rename of run.json",
    "result written": "between run.json and the journal's last line",
}


@pytest.mark.fault("P2", "kill -9 at a crash point: mid-epoch, before a rename, in validation, before run.json ...")
@pytest.mark.parametrize("where", POINTS)
def test_killed_anywhere_and_started_again(taught: Path, other: Path, where: str) -> None:
    assert attempt(other, TAUGHT, crash=where) == -9, POINTS[where]
    if where != "result written":
        assert not (other / TAUGHT.folder / "run.json").exists()
    assert attempt(other, TAUGHT) == 0
    assert result(other, TAUGHT) == result(taught, TAUGHT)
    assert not (other / TAUGHT.folder / "state").exists()


@pytest.mark.fault("P2", "kill -9 where states are rare, so that much is done again")
def test_killed_without_a_state_starts_from_the_beginning(taught: Path, other: Path) -> None:
    assert attempt(other, TAUGHT, crash="updated:5", save_seconds=1000) == -9
    assert attempt(other, TAUGHT) == 0
    assert result(other, TAUGHT) == result(taught, TAUGHT)


@pytest.mark.fault("P2", "kill -9 five times in one epoch of four updates")
def test_killed_five_times_in_one_epoch(taught: Path, other: Path) -> None:
    for where in ("optimiser stepped:1", "updated:2", "renaming state-*:1", "optimiser stepped:2", "updated:1"):
        assert attempt(other, TAUGHT, crash=where) == -9
    events = [line for line in read(other / TAUGHT.folder / "metrics.jsonl") if line["kind"] == "event"]
    assert max(line["iteration"] for line in events) < 4, "all within the first epoch"
    assert attempt(other, TAUGHT) == 0
    assert result(other, TAUGHT) == result(taught, TAUGHT)


@pytest.mark.fault("P2", "kill -9 exactly at the end of an epoch")
def test_killed_at_the_end_of_an_epoch(taught: Path, other: Path) -> None:
    assert attempt(other, TAUGHT, crash="state written:4") == -9
    assert attempt(other, TAUGHT) == 0
    assert result(other, TAUGHT) == result(taught, TAUGHT)
    events = [line for line in read(other / TAUGHT.folder / "metrics.jsonl") if line["kind"] == "event"]
    assert [line["iteration"] for line in events if line["event"] == "resume"] == [4]


@pytest.mark.fault("P2", "kill -9 while a method's bank, discriminator or own optimiser is half way")
@pytest.mark.parametrize("method", OWN)
def test_killed_with_state_of_a_methods_own(taught: Path, other: Path, method: str) -> None:
    for where in ("optimiser stepped:2", "updated:3"):
        assert attempt(other, student(method), crash=where) == -9
    assert attempt(other, student(method)) == 0
    assert result(other, student(method)) == result(taught, student(method))


@pytest.mark.fault("P2", "a teacher that is killed")
def test_killed_teacher(taught: Path, other: Path) -> None:
    shutil.rmtree(other / TEACHER.folder)
    assert attempt(other, TEACHER, crash="updated:3") == -9
    assert attempt(other, TEACHER) == 0
    assert result(other, TEACHER) == result(taught, TEACHER)


@pytest.mark.fault("P1", "the same run in another folder, with loader threads")
def test_the_same_run_elsewhere_has_the_same_bytes(taught: Path, other: Path) -> None:
    assert attempt(other, TAUGHT, workers=2) == 0
    assert result(other, TAUGHT) == result(taught, TAUGHT)


@pytest.mark.fault("P2", "the last updates done, the result not written: nothing is trained again")
def test_only_what_is_missing_is_done(other: Path) -> None:
    assert attempt(other, TAUGHT, crash="weights written") == -9
    assert attempt(other, TAUGHT, crash="optimiser stepped") == 0
    assert read_json(other / TAUGHT.folder / "run.json")["timing"]["resumes"] == 1


def test_crash_points_are_armed_by_the_environment_only(other: Path) -> None:
    code = "from segkd import crash\nfor _ in range(3): crash.point('here'); print('passed', flush=True)"

    def passed(**more: str) -> tuple[int, int]:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.count("passed")

    assert passed() == (0, 3)
    assert passed(SEGKD_CRASH="there") == (0, 3)
    assert passed(SEGKD_CRASH="he*:2") == (-9, 1)
