"""MLflow is absent, gone, locked, slow or full: the pipeline hears a reason, and a later replay fills the gap."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Any

import pytest

from segkd.config.runs import Run
from segkd.errors import ConfigError
from segkd.tracking import replay
from segkd.tracking.replay import track
from segkd.tracking.store import Store, TrackingError

PLAIN, TAUGHT = Run("digits", "small"), Run("digits", "small", "kd", "large")


class Trouble:
    """A study of two finished students; `fails` and `works` replay it."""

    def __init__(self, project: Any):
        self.project = project
        project.study()
        self.trained = [PLAIN, TAUGHT]
        for run in self.trained:
            project.train(run, count=5)

    def fails(self, **words: Any) -> str:
        """The one reason for all trained runs, which is also what is written."""
        found = track("tiny", self.project.root, **words)
        assert json.loads((self.project.root / "reports/tiny/tracking.json").read_text()) == found
        (reason,) = {json.dumps(found[run.name]) for run in self.trained}
        assert str(self.project.root) not in json.dumps(found)
        return json.loads(reason)["error"]

    def works(self) -> None:
        found = track("tiny", self.project.root)
        assert all("mlflow_run_id" in found[run.name] for run in self.trained)
        assert len(self.project.alive("%seed 0")) == 2


@pytest.fixture
def trouble(ready: Any) -> Trouble:
    return Trouble(ready)


def test_runs_that_are_not_trained_are_named_without_mlflow(ready, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    ready.study(seeds=(0,), methods=("none",))
    found = track("tiny", ready.root)
    assert set(found) == {PLAIN.name}
    assert found[PLAIN.name]["error"].startswith("Nothing was trained yet. expected: run.json or metrics.jsonl")


def test_a_study_that_does_not_exist_is_the_users_error(ready):
    with pytest.raises(ConfigError):
        track("missing", ready.root)


@pytest.mark.fault("P5", "MLflow is not installed")
def test_mlflow_is_not_installed(trouble, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mlflow.tracking", None)
        assert "MLflow cannot be imported" in trouble.fails()
    trouble.works()


@pytest.mark.fault("P5", "MLflow's store is another file")
@pytest.mark.parametrize("uri", ["sqlite:///params.yaml", "sqlite:///params.yaml/mlflow.db"])
def test_the_store_is_no_store(trouble, monkeypatch, uri):
    before = (trouble.project.root / "params.yaml").read_bytes()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        assert "cannot be used" in trouble.fails()
    assert (trouble.project.root / "params.yaml").read_bytes() == before
    trouble.works()


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that has locked the store."""

    def __init__(self, project: Any):
        words = [sys.executable, "-c", HOLD, str(project.root / "mlflow.db")]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"held\n"

    def leave(self) -> None:
        self.process.communicate(timeout=20)


@pytest.mark.fault("P5", "MLflow's database stays locked")
def test_the_store_stays_locked_by_another_process(trouble):
    holder = Holder(trouble.project)
    try:
        assert "database is locked" in trouble.fails(patience=0.2)
    finally:
        holder.leave()
    trouble.works()


@pytest.mark.fault("P5", "MLflow's database is locked for a moment")
def test_the_store_is_locked_for_a_moment(trouble):
    holder = Holder(trouble.project)
    timer = threading.Timer(1.0, holder.leave)
    timer.start()
    trouble.works()
    timer.join()


@pytest.mark.fault("P5", "another writer of MLflow's store hangs")
def test_another_writer_of_this_project_does_not_let_go(trouble):
    from filelock import FileLock

    with FileLock(trouble.project.root / "mlflow.db.lock"):
        assert "other writers held" in trouble.fails(patience=0.2)
    trouble.works()


@pytest.mark.fault("P5", "an MLflow server that hangs or is gone")
@pytest.mark.parametrize("silent", [True, False])
def test_a_server_that_hangs_or_is_gone(trouble, monkeypatch, caplog, silent):
    """Nor do user name and password appear anywhere."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server, monkeypatch.context() as patch:
        port = server.getsockname()[1]
        if not silent:
            server.close()
        patch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:pass@word@127.0.0.1:{port}")
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        began = time.monotonic()
        reason = trouble.fails()
    assert time.monotonic() - began < 10
    assert "127.0.0.1" in reason and "/api/2.0/mlflow" in reason
    assert not any(secret in reason + caplog.text for secret in ("somebody", "pass@", "word@"))
    trouble.works()


@pytest.mark.fault("P5", "an MLflow store that is too slow")
def test_a_replay_has_a_time_limit(trouble, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(replay, "SECONDS", (0.0, 0.0))
        assert trouble.fails() == "the time limit of this replay has passed"
    trouble.works()


@pytest.mark.fault("P5", "MLflow refuses one run")
def test_one_run_that_mlflow_refuses_keeps_no_other_out(trouble, monkeypatch):
    measure = Store.measure

    def refuse(store: Store, run_id: str, points: Any) -> None:
        if run_id in trouble.project.alive("none · digits-small · seed 0"):
            raise TrackingError("refused")
        measure(store, run_id, points)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "measure", refuse)
        found = track("tiny", trouble.project.root)
    assert found[PLAIN.name] == {"error": "refused"} and "mlflow_run_id" in found[TAUGHT.name]
    trouble.works()


@pytest.mark.fault("P5", "MLflow's disk is full")
def test_after_two_refusals_in_a_row_the_rest_waits_for_the_next_replay(ready, monkeypatch):
    trouble, asked = Trouble(ready), []
    trouble.trained = [Run("digits", "large"), PLAIN, TAUGHT]
    ready.train(trouble.trained[0], count=5)

    def refuse(store: Store, run_id: str, points: Any) -> None:
        asked.append(run_id)
        raise TrackingError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "measure", refuse)
        found = track("tiny", ready.root)
    assert len(asked) == 2
    assert found[TAUGHT.name] == {"error": "not tried, since the runs before failed: disk is full"}
    found = track("tiny", ready.root)
    assert all("mlflow_run_id" in found[run.name] for run in trouble.trained) and len(ready.alive("%seed 0")) == 3


@pytest.mark.fault("P5", "a damaged run.json among those that are mirrored")
@pytest.mark.parametrize("content", ["{", "[1]", '{"run": 1}'])
def test_a_damaged_record_is_a_reason_and_the_others_go_on(trouble, content):
    (trouble.project.root / PLAIN.folder / "run.json").write_text(content)
    found = track("tiny", trouble.project.root)
    assert set(found[PLAIN.name]) == {"error"} and "mlflow_run_id" in found[TAUGHT.name]


@pytest.mark.fault("P5", "means over seeds that cannot be formed")
def test_means_that_cannot_be_formed_hide_no_run(trouble, monkeypatch):
    def broken(*_: Any) -> None:
        raise KeyError("split")

    monkeypatch.setattr(replay, "close_cell", broken)
    trouble.works()


@pytest.mark.fault("P4", "passwords and tokens in the environment of a replay")
def test_the_environment_stays_out_of_the_store(trouble, monkeypatch):
    names = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "GITHUB_TOKEN", "PASSWORD")
    for name in names:
        monkeypatch.setenv(name, "do-not-tell-4711")
    trouble.works()
    written = [path for path in trouble.project.root.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if b"do-not-tell-4711" in path.read_bytes()]
    with closing(sqlite3.connect(trouble.project.root / "mlflow.db")) as connection:
        assert not [line for line in connection.iterdump() if "do-not-tell" in line]
