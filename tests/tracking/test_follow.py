"""The follower: MLflow shows a run while it trains, and the replay completes the same MLflow run."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segkd.config.runs import Run
from segkd.errors import DataError
from segkd.tracking import follow as module
from segkd.tracking.follow import Follower, Tail, follow, start_follower, study_of
from segkd.tracking.journal import Journal
from segkd.tracking.replay import track
from segkd.tracking.store import Store, TrackingError

RUN = Run("digits", "small")


class TestTail:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "metrics.jsonl"

    def line(self, k: int) -> str:
        return json.dumps({"kind": "train", "iteration": k, "time": 0.0, "values": {"loss": 1.0}}) + "\n"

    def read(self, tail: Tail) -> list[int]:
        return [line["iteration"] for line in tail.read()]

    def test_gives_each_whole_line_once(self, path):
        tail = Tail(path)
        assert self.read(tail) == []  # there is no file yet
        text = "".join(map(self.line, range(5)))
        seen = []
        for end in range(len(text) + 1):  # whatever was written when it looked
            path.write_text(text[:end])
            seen += self.read(tail)
            assert not tail.restarted
        assert seen == [0, 1, 2, 3, 4]
        assert self.read(tail) == []

    def test_begins_anew_after_a_rewind(self, path):
        tail = Tail(path)
        with Journal(path) as journal:
            for k in range(5):
                journal.train(k, {"loss": 1.0})
            journal.flush()
            assert self.read(tail) == [0, 1, 2, 3, 4]
            journal.rewind(1)
            for k in range(2, 9):  # longer than before: the size alone says nothing
                journal.train(k, {"loss": 2.0})
        assert self.read(tail) == [0, 1, 2, 3, 4, 5, 6, 7, 8] and tail.restarted
        assert self.read(tail) == [] and not tail.restarted

    def test_damage_is_told(self, path):
        path.write_text("nonsense\n" + self.line(1))
        with pytest.raises(DataError, match="damaged"):
            Tail(path).read()


class Live:
    """A run that trains: its journal grows when the test says so."""

    def __init__(self, project: Any, told: Callable[..., Any]):
        self.project, self._told = project, told
        project.study(seeds=(0,), methods=("none",))
        self.lines = project.lines(RUN)
        self.folder = project.root / RUN.folder

    def write(self, count: int) -> None:
        self.project.write_journal(RUN, self.lines[:count])

    def told(self, count: int) -> list[tuple[str, int, int, float]]:
        return self._told(self.lines[:count])

    @property
    def run_id(self) -> str:
        (found,) = self.project.alive("%seed 0")
        return found

    def held(self) -> list[tuple[str, int, int, float]]:
        return self.project.metrics(self.run_id)

    def status(self) -> tuple[str, int | None]:
        return self.project.sql("select status, end_time from runs where run_uuid = ?", self.run_id)[0]


@pytest.fixture
def live(ready: Any, journal_in_mlflow: Callable[..., Any]) -> Live:
    return Live(ready, journal_in_mlflow)


@pytest.fixture
def follower(live: Live, monkeypatch: pytest.MonkeyPatch) -> Follower:
    monkeypatch.setattr(module, "AGAIN", 0.0)
    return Follower(live.folder, live.project.root)


def replayed(live: Live) -> None:
    """The replay completes the follower's run and doubles nothing."""
    before = live.run_id
    live.project.train(RUN)
    assert track("tiny", live.project.root)[RUN.name]["mlflow_run_id"] == before == live.run_id
    found = [row for row in live.held() if row[0].startswith(("train/", "val/"))]
    assert found == live.told(len(live.lines))
    assert live.status() == ("FINISHED", 1763762100000)
    folder = live.project.root / "mlartifacts/segkd/tiny" / before / "artifacts"
    assert {"run.json", "samples.png", "confusion.csv"} <= {file.name for file in folder.iterdir()}
    assert len(live.project.alive()) == 2


def test_mirrors_a_journal_that_grows_and_the_replay_completes_the_run(live, follower):
    follower.look()  # there is no journal yet
    for count in (1, 2, 20, 20, 40):
        live.write(count)
        follower.look()
        if count > 1:
            assert live.held() == live.told(count)
            assert live.status() == ("RUNNING", None)
    live.project.train(RUN)
    follower.end()
    assert live.held() == live.told(len(live.lines))
    assert live.status() == ("FINISHED", 1763762100000)
    replayed(live)


def test_asks_mlflow_only_when_there_is_news(live, follower, monkeypatch):
    sizes, measure = [], Store.measure

    def count(store: Store, run_id: str, some: Any) -> None:
        sizes.append(len(some))
        measure(store, run_id, some)

    monkeypatch.setattr(Store, "measure", count)
    for number in (11, 11, 21):
        live.write(number)
        follower.look()
    assert sizes == [40, 40]


@pytest.mark.parametrize(("last", "status"), [("stop", "KILLED"), ("resume", "FAILED")])
def test_says_how_a_run_without_result_ended(live, follower, last, status):
    live.lines[20:] = [{"kind": "event", "iteration": 38, "time": 1763762100.5, "event": last, "detail": ""}]
    live.write(21)
    follower.look()
    follower.end()
    assert live.status() == (status, 1763762100500)


def test_a_rewound_journal_gets_a_run_of_its_own(live, follower):
    live.write(40)
    follower.look()
    gone = live.run_id
    with Journal(live.folder / "metrics.jsonl") as journal:
        journal.rewind(20)
    kept = [line for line in live.lines[:40] if line["iteration"] <= 20]
    live.lines = kept + [line | {"time": line["time"] + 1000} for line in live.lines[len(kept) :]]
    with (live.folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in live.lines[len(kept) : 45])
    follower.look()
    assert live.run_id != gone and live.held() == live.told(45)


@pytest.mark.fault("P5", "MLflow refuses while a run is followed")
def test_keeps_what_mlflow_would_not_take(live, follower, monkeypatch, caplog):
    def refuse(*_: Any) -> None:
        raise TrackingError("no answer from http://me:hush@host")

    live.write(20)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "measure", refuse)
        follower.look()
        live.write(30)
        follower.look()
    assert live.held() == [] and caplog.text.count("not mirrored") == 2 and "hush" not in caplog.text
    live.write(35)
    follower.look()
    assert live.held() == live.told(35)


@pytest.mark.fault("P5", "MLflow keeps failing while a run is followed")
def test_leaves_a_failing_mlflow_alone_for_a_while(live, follower, monkeypatch):
    asked = []

    def refuse(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise TrackingError("gone")

    monkeypatch.setattr(module, "AGAIN", 100.0)
    monkeypatch.setattr(module, "Store", refuse)
    for count in (10, 20, 30):
        live.write(count)
        follower.look()
    assert asked == [1]
    follower.end()  # the last lines are worth one more attempt
    assert asked == [1, 1]


@pytest.mark.fault("P5", "an MLflow run that is deleted while it is followed")
def test_finds_its_place_after_its_run_was_deleted(live, follower):
    live.write(20)
    follower.look()
    Store("sqlite:///mlflow.db", live.project.root).delete(live.run_id)
    live.write(30)
    follower.look()  # MLflow refuses values for a deleted run
    live.write(40)
    follower.look()
    assert live.held() == live.told(40)


def test_a_replay_that_read_the_journal_earlier_finds_the_same_run(live, follower, monkeypatch):
    """While a replay works through a study, a run of it goes on and is followed."""
    live.write(20)
    follower.look()
    before, mirror_all = live.run_id, module.open_cell

    def late(*words: Any) -> Any:
        live.write(30)
        follower.look()
        return mirror_all(*words)

    monkeypatch.setattr("segkd.tracking.replay.open_cell", late)
    assert track("tiny", live.project.root)[RUN.name]["mlflow_run_id"] == before
    assert live.held() == live.told(30)
    monkeypatch.undo()
    replayed(live)


@pytest.mark.fault("P5", "a follower that looks at a run")
def test_looking_changes_nothing_in_the_runs_folder(live, follower):
    live.write(20)
    follower.look()
    follower.end()
    assert [file.name for file in live.folder.iterdir()] == ["metrics.jsonl"]
    assert len((live.folder / "metrics.jsonl").read_text().splitlines()) == 20


def test_the_study_of_a_run(project):
    project.study("b")
    project.study("a", methods=("none",))
    taught = Run("digits", "small", "kd", "large", 7)  # a seed of its own still belongs to the study's cell
    assert study_of(RUN, project.params, project.root) == "a"
    assert study_of(taught, project.params, project.root) == "b"
    assert study_of(RUN, project.params.model_copy(update={"studies": ("b",)}), project.root) == "b"
    assert study_of(Run("digits", "large", "kd", "large"), project.params, project.root) == "other"


@pytest.fixture
def training() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_follows_until_the_process_is_gone(live, training):
    live.write(30)
    training.kill()
    training.wait()
    follow(live.folder, live.project.root, training.pid, every=0.01)
    assert live.held() == live.told(30) and live.status()[0] == "FAILED"


def test_follows_until_there_is_a_result(live, training, monkeypatch):
    looks: list[int] = []

    def look(self: Follower) -> None:
        looks.append(1)
        if len(looks) == 3:
            live.project.train(RUN)

    monkeypatch.setattr(Follower, "look", look)
    follow(live.folder, live.project.root, training.pid, every=0.01)
    assert len(looks) == 4 and training.poll() is None  # the fourth is the last look, of `end`


def waits(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.1)


def test_a_real_follower_beside_a_real_process(live, training):
    root = live.project.root
    live.write(20)
    began = time.monotonic()
    start_follower(live.folder, root=root, pid=training.pid)
    assert time.monotonic() - began < 1.0
    waits(lambda: bool(live.project.alive("%seed 0")) and live.held() == live.told(20))
    live.write(30)
    training.kill()
    training.wait()
    waits(lambda: live.status()[0] == "FAILED")
    assert live.held() == live.told(30)
    assert "Traceback" not in (root / module.LOG).read_text()
    replayed(live)


@pytest.mark.fault("P5", "a follower that cannot be started")
@pytest.mark.parametrize("trouble", ["no interpreter", "no room for the log", "no process"])
def test_starting_never_raises(live, monkeypatch, caplog, trouble):
    if trouble == "no interpreter":
        monkeypatch.setattr(sys, "executable", "")
    elif trouble == "no room for the log":
        (live.project.root / "mlartifacts").write_text("in the way")
    else:

        def refuse(*_: Any, **__: Any) -> None:
            raise BlockingIOError("Resource temporarily unavailable")

        monkeypatch.setattr(subprocess, "Popen", refuse)
    start_follower(live.folder, root=live.project.root)
    assert "MLflow is not fed while this run trains" in caplog.text


@pytest.mark.fault("P4", "a follower whose MLflow address holds a password")
def test_the_process_ends_quietly_without_mlflow_and_tells_no_secret(live, training, monkeypatch, caplog):
    """What it logs when a server with credentials in its address is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:pass@word@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sys, "argv", ["follow", str(live.folder), "--pid", str(training.pid), "--every", "0.01"])
    monkeypatch.chdir(live.project.root)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    live.write(20)
    training.kill()
    training.wait()
    with caplog.at_level(logging.DEBUG, "segkd"):
        module.main()
    assert "not mirrored" in caplog.text and "127.0.0.1" in caplog.text
    assert not [secret for secret in ("somebody", "pass@", "word@") if secret in caplog.text]


def test_a_folder_that_is_no_run_is_told(live, training, monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["follow", "nowhere", "--pid", str(training.pid)])
    monkeypatch.chdir(live.project.root)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    module.main()
    assert "nowhere is no longer followed: This does not name a run." in caplog.text
