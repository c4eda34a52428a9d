"""The door to MLflow: what it takes, when it waits, when it gives up; and eight writers at once."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.config.runs import Run, describe, resolve
from segkd.tracking.record import Dataset, Point, name_of, params
from segkd.tracking.replay import track
from segkd.tracking.store import BATCH, Store, TrackingError, locate, scrub, stored


@pytest.fixture
def store(ready: Any) -> Store:
    return Store("sqlite:///mlflow.db", ready.root, patience=1.0)


@pytest.fixture
def run_id(store: Store) -> str:
    return store.create(store.experiment("segkd/tiny"), "a run", 1000, {})


@pytest.mark.fault("P5", "metrics of any name (hypothesis)")
@settings(deadline=None)  # the first call imports MLflow
@given(st.text(max_size=300) | st.text("./ a:é", max_size=300))
def test_mlflow_takes_every_name(text):
    from mlflow.utils.validation import _validate_metric, _validate_param

    _validate_metric(name_of(text), 0.5, 0, 0)
    _validate_param(name_of(text), "")


@given(st.text("abc_-. ", min_size=1, max_size=20).filter(lambda text: text not in (".", "..")))
def test_good_names_stay(name):
    assert name_of(f"train/{name}") == f"train/{name}"


def test_params_of_any_length_go_in(store, run_id):
    flat = params({"a": {"b": [1, 2], "c": None, "d": {}, "e": ""}, "long": "x" * 7000, "f": 0.1})
    store.describe(run_id, flat, {})
    store.describe(run_id, flat, {})
    found = store.client.get_run(run_id).data.params
    assert found == flat
    assert found | {"long": ""} == {"a.b": "[1, 2]", "a.c": "null", "a.d": "{}", "a.e": "", "f": "0.1", "long": ""}
    assert len(found["long"]) == 5999 and found["long"].endswith("x…")


def test_more_params_and_tags_than_one_request_takes(store, run_id):
    many = {f"key.{k}": str(k) for k in range(250)}
    store.describe(run_id, many, many)
    found = store.client.get_run(run_id).data
    assert found.params == many and many.items() <= found.tags.items()


def test_metrics_go_in_few_requests_and_come_back_exactly(store, run_id, monkeypatch):
    points = [Point("train/loss", 1 / 3 + k, 1763762000123 + k, k) for k in range(2 * BATCH + 1)]
    points += [Point("a", value, 5, 7) for value in (math.nan, math.inf, -math.inf, 5e-324, -0.0, 1e308)]
    sizes, log_batch = [], store.client.log_batch

    def count(run: str, metrics: Any) -> None:
        sizes.append(len(metrics))
        log_batch(run, metrics=metrics)

    monkeypatch.setattr(store.client, "log_batch", count)
    store.measure(run_id, points)
    assert sizes == [BATCH, BATCH, 7]
    assert store.history(run_id, ["train/loss", "a"]) == {stored(point) for point in points}
    store.measure(run_id, points[-100:])
    assert store.history(run_id, ["train/loss", "a"]) == {stored(point) for point in points}


def test_inputs_are_listed_once(store, run_id):
    rows = [Dataset("digits-train", "d" * 36, "data/prepared/digits", "train")]
    store.inputs(run_id, rows)
    store.inputs(run_id, rows)
    store.inputs(run_id, [])
    (found,) = store.client.get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.source) == ("digits-train", '{"uri": "data/prepared/digits"}')


def test_an_experiment_is_made_once_and_restored(store):
    first = store.experiment("segkd/tiny")
    assert store.experiment("segkd/tiny") == first
    store.client.delete_experiment(first)
    assert store.experiment("segkd/tiny") == first
    assert store.client.get_experiment(first).lifecycle_stage == "active"


def test_artifacts_lie_where_mlflows_server_looks_and_are_replaced(store, run_id, ready, tmp_path):
    folder = tmp_path / "files"
    for text in ("old", "new"):
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "deep" / "a.txt").write_text(text)
        store.artifacts(run_id, folder)
    uri = store.client.get_run(run_id).info.artifact_uri
    assert uri == f"mlflow-artifacts:/segkd/tiny/{run_id}/artifacts"  # below --artifacts-destination, ./mlartifacts
    place = ready.root / "mlartifacts/segkd/tiny" / run_id / "artifacts"
    assert [str(path.relative_to(place)) for path in sorted(place.rglob("*"))] == ["deep", "deep/a.txt"]
    assert (place / "deep/a.txt").read_text() == "new"


@pytest.mark.fault("P5", "MLflow artifacts that cannot be written")
def test_artifacts_that_cannot_be_written(store, run_id, ready, tmp_path):
    (ready.root / "mlartifacts").write_text("a file is in the way")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    with pytest.raises(TrackingError, match="artifacts cannot be written"):
        store.artifacts(run_id, tmp_path / "files")


def test_artifacts_of_a_store_elsewhere_lie_beside_it(project, database, tmp_path):
    (tmp_path / "elsewhere.db").write_bytes(database.read_bytes())
    store = Store(f"sqlite:///{tmp_path / 'elsewhere.db'}", project.root)
    run_id = store.create(store.experiment("segkd/tiny"), "a run", 1000, {})
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    store.artifacts(run_id, tmp_path / "files")
    assert (tmp_path / "mlartifacts/segkd/tiny" / run_id / "artifacts/a.txt").read_text() == "a"
    assert not (project.root / "mlartifacts").exists()


@pytest.mark.fault("P5", "an MLflow store that is busy")
def test_a_busy_store_is_asked_again(store):
    answers = iter([OSError("database is locked"), OSError("(sqlite3.OperationalError) database is locked"), None])

    def action() -> str:
        if error := next(answers):
            raise error
        return "done"

    assert store.call(action) == "done"


@pytest.mark.fault("P5", "an MLflow store that stays busy")
def test_a_store_that_stays_busy_is_given_up_in_time(store):
    def action() -> None:
        raise OSError("database is locked")

    began = time.monotonic()
    with pytest.raises(TrackingError, match="database is locked"):
        store.call(action)
    assert time.monotonic() - began < 1.0 + 0.5


@pytest.mark.fault("P4", "an MLflow failure whose message holds a password")
def test_any_other_failure_is_told_at_once_in_one_line_without_secrets(store):
    calls = []

    def action() -> None:
        calls.append(1)
        raise RuntimeError("\nno answer from http://me:hush@host/\nsecond line")

    with pytest.raises(TrackingError) as caught:
        store.call(action)
    assert len(calls) == 1
    assert str(caught.value).endswith("no answer from http://host/") and "hush" not in str(caught.value)


@pytest.mark.fault("P4", "passwords and tokens in addresses and headers")
@pytest.mark.parametrize(
    "text",
    [
        "http://me:hush@host:5000/path",
        "postgresql+psycopg2://me:hu@sh@host/db?sslmode=require",
        "mysql://:hush@host/db",
        "https://host/?token=hush&password=hush",
        "Authorization: Bearer hush-hush-hush",
        "authorization: basic aHVzaA==",
        "the server said hush-env",
    ],
)
def test_secrets_are_cut_out(text, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush-env")
    assert not [secret for secret in ("hush", "hu@sh", "sh@host", "aHVz", "me:") if secret in scrub(text)]


def test_what_is_no_secret_stays():
    text = "sqlite:///mlflow.db: data/models/digits/small/kd@large/seed0: basic error, key word"
    assert scrub(text) == text


def test_relative_files_lie_in_the_project_and_the_environment_comes_first(project, database, monkeypatch):
    root = project.root.resolve()
    assert locate("sqlite:///mlflow.db", root) == (f"sqlite:///{root}/mlflow.db", root / "mlflow.db", True)
    assert locate("sqlite:////srv/a.db", root) == ("sqlite:////srv/a.db", Path("/srv/a.db"), False)
    assert locate("https://host", root) == ("https://host", None, False)
    (root / "mine.db").write_bytes(database.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert Store("sqlite:///mlflow.db", root).file == root / "mine.db"
    assert not (root / "mlflow.db").exists()


def test_mlflow_is_imported_by_none_who_need_it_not(project):
    """Its import costs seconds: neither the modules nor a study without trained runs pay them."""
    project.study()
    code = (
        "import sys, segkd.tracking.follow; from segkd.tracking.replay import track; from pathlib import Path;"
        "track('tiny', Path(sys.argv[1])); print({'mlflow', 'torch', 'pandas'} & {*sys.modules})"
    )
    words = [sys.executable, "-c", code, str(project.root)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_no_telemetry(store):
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
    assert logging.getLogger("mlflow").level == logging.CRITICAL


EIGHT = """
# Eight processes that share nothing but a folder. They are forked after the import of MLflow, which costs seconds, and
# begin at once, so that they meet at every step: making the store, the experiment, the parent run.
import os, sys
from pathlib import Path
from segkd.tracking.store import Store, quiet_environment
quiet_environment()
import mlflow.tracking, mlflow.store.tracking.sqlalchemy_store, matplotlib.figure
from segkd.config.runs import Run
from segkd.tracking.cells import open_cell
from segkd.tracking.mirror import mirror
from segkd.tracking.record import read_record

root, (out, into) = Path(sys.argv[1]), os.pipe()
children = []
for seed in range(8):
    if not (pid := os.fork()):
        os.close(into)
        os.read(out, 1)
        store = Store("sqlite:///mlflow.db", root)
        experiment = store.experiment("segkd/tiny")
        record = read_record(root, Run("digits", "small", "kd", "large", seed), {})
        mirror(store, experiment, "tiny", record, open_cell(store, experiment, "tiny", [record]), root)
        os._exit(0)
    children.append(pid)
os.close(into)
sys.exit(sum(os.waitpid(pid, 0)[1] for pid in children) and 1)
"""


@pytest.mark.fault("P5", "eight processes that open a fresh MLflow store at once")
def test_eight_processes_at_once_into_a_fresh_store_lose_nothing(project, journal_in_mlflow):
    seeds = tuple(range(8))
    runs = [Run("digits", "small", "kd", "large", seed) for seed in seeds]
    project.study(seeds=seeds, methods=("kd",))
    for run in runs:
        project.train(run, count=1000)
    words = [sys.executable, "-c", EIGHT, str(project.root)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    names = Counter(name for (name,) in project.sql("select name from runs where lifecycle_stage = 'active'"))
    cell = "kd@large · digits-small"
    assert names == Counter([cell, *(f"{cell} · seed {seed}" for seed in seeds)])
    assert project.sql("select count(*) from runs") == [(9,)]
    assert project.sql("select count(*) from experiments where name = 'segkd/tiny'") == [(1,)]
    (parent,) = project.alive(cell)
    for run in runs:
        (run_id,) = project.alive(f"{cell} · seed {run.seed}")
        found = [row for row in project.metrics(run_id) if row[0].startswith(("train/", "val/"))]
        assert len(found) == 4002
        assert found == journal_in_mlflow(project.lines(run, 1000))
        assert ("test/miou", 100, 1763762100000, 0.5) in project.metrics(run_id)
        tags = dict(project.sql("select key, value from tags where run_uuid = ?", run_id))
        assert tags["mlflow.parentRunId"] == parent and tags["seed"] == str(run.seed) and "segkd.content" in tags
        config = describe(resolve(project.params, run))
        held = dict(project.sql("select key, value from params where run_uuid = ?", run_id))
        assert held == params(config) and len(held) > 30
        assert project.sql("select count(*) from inputs where destination_id = ?", run_id) == [(2,)]
        assert len(list((project.root / "mlartifacts/segkd/tiny" / run_id / "artifacts").iterdir())) == 8

    before = project.sql("select count(*) from metrics")[0][0]
    answers = track("tiny", project.root)
    assert {answers[run.name]["mlflow_run_id"] for run in runs} == set(project.alive(f"{cell} · seed %"))
    assert project.sql("select count(*) from metrics")[0][0] == before + 3  # the cell's mean, sd and n
