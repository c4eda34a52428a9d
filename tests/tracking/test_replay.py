"""A study in MLflow: everything is there, once, whatever happened on the way."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from segkd.config.runs import Run
from segkd.tracking import mirror as mirror_module
from segkd.tracking.replay import track
from segkd.tracking.store import Store

FINISHED = 1763762100000  # 2025-11-21T21:55:00Z, as run.json says
PLAIN, TAUGHT = Run("digits", "small"), Run("digits", "small", "kd", "large")
TABLES = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags", "datasets", "inputs", "input_tags")


def rows(project: Any) -> dict[str, Any]:
    """The whole content of the store, to be compared."""
    return {table: sorted(map(repr, project.sql(f"select * from {table}"))) for table in TABLES}


def artifacts(project: Any, study: str, run_id: str) -> Path:
    return project.root / "mlartifacts" / "segkd" / study / run_id / "artifacts"


@pytest.fixture(scope="module")
def answers(shared_project: Any) -> dict[str, dict[str, str]]:
    shared_project.study()
    for run in shared_project.runs():
        shared_project.train(run, miou=0.5 + 0.1 * (run.seed or 0))
    shared_project.pretrain(TAUGHT)
    return track("tiny", shared_project.root)


@pytest.fixture(scope="module")
def client(shared_project: Any) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{shared_project.root / 'mlflow.db'}")


@pytest.fixture
def taught(answers: dict[str, dict[str, str]], client: Any) -> Any:
    return client.get_run(answers[TAUGHT.name]["mlflow_run_id"])


class TestStudy:
    """One replay of a study with a pretraining, looked at from all sides."""

    def test_every_run_is_answered_and_written(self, shared_project, answers):
        names = {run.name for run in shared_project.runs()} | {"digits/small/kd@large/autoencoder"}
        assert set(answers) == names
        assert all(set(answer) == {"mlflow_run_id", "experiment_id"} for answer in answers.values())
        assert json.loads((shared_project.root / "reports/tiny/tracking.json").read_text()) == answers

    def test_one_experiment_for_the_study_and_a_parent_for_each_cell(self, answers, client):
        experiment = client.get_experiment_by_name("segkd/tiny")
        assert {answer["experiment_id"] for answer in answers.values()} == {experiment.experiment_id}
        found = client.search_runs([experiment.experiment_id])
        names = {run.info.run_id: run.info.run_name for run in found}
        tree = Counter((names.get(run.data.tags.get("mlflow.parentRunId")), run.info.run_name) for run in found)
        large, none, kd = "none · digits-large", "none · digits-small", "kd@large · digits-small"
        children = [(large, "seed 0"), (none, "seed 0"), (none, "seed 1"), (kd, "seed 0"), (kd, "seed 1")]
        children.append((kd, "autoencoder"))
        expected = [(None, large), (None, none), (None, kd), *((cell, f"{cell} · {one}") for cell, one in children)]
        assert tree == Counter(expected)

    def test_every_value_of_the_journal_with_step_and_time(self, shared_project, answers, journal_in_mlflow):
        for run in shared_project.runs():
            found = shared_project.metrics(answers[run.name]["mlflow_run_id"])
            journal = [row for row in found if row[0].startswith(("train/", "val/"))]
            assert journal == journal_in_mlflow(shared_project.lines(run))

    def test_the_result_and_its_cost(self, shared_project, taught):
        found = shared_project.metrics(taught.info.run_id)
        rest = {row[0]: row[1:] for row in found if not row[0].startswith(("train/", "val/"))}
        last = {"test/miou": 0.5, "test/pixel_accuracy": 0.9, "test/ece": 0.05, "test/absent_classes": 1.0}
        best = {"miou": 0.51, "pixel_accuracy": 0.9, "ece": 0.05, "absent_classes": 1.0}
        cost = {"parameters": 12345, "flops": 10, "macs": 5, "latency_ms_median": 1.5, "peak_rss_bytes": 1000}
        cost |= {"training_wall_seconds": 100, "training_iterations": 100, "training_iterations_per_second": 1}
        cost["training_resumes"] = 0
        expected = {name: (100, FINISHED, value) for name, value in last.items()}
        expected |= {f"best_on_val/{name}": (60, FINISHED, value) for name, value in best.items()}
        expected |= {f"cost/{name}": (100, FINISHED, value) for name, value in cost.items()}
        assert rest == expected

    def test_flat_params(self, taught):
        params = taught.data.params
        expected = {"recipe.batch": "4", "recipe.augmentation.crop": "[48, 48]", "recipe.optimiser.lr": "0.003"}
        expected |= {"method.temperature": "4.0", "network.width": "0.1", "teacher.width": "0.25", "seed": "0"}
        assert expected.items() <= params.items()
        assert not any(value.startswith("{") and value != "{}" for value in params.values())

    def test_tags_one_searches_by(self, answers, client, taught):
        expected = {"method": "kd", "preset": "paper", "network": "small", "teacher": "large", "recipe": "digits"}
        expected |= {"seed": "0", "git_commit": "c" * 40, "git_dirty": "false", "data_sha256": "d" * 64}
        expected |= {"study": "tiny", "run": TAUGHT.name, "step": "student", "teacher_sha256": "7" * 64}
        expected |= {"teacher_run": "digits/large/none/seed0", "command": f"segkd student {TAUGHT.name}"}
        tags = taught.data.tags
        assert expected.items() <= tags.items()
        assert len(tags["config_sha256"]) == 64 and len(tags["weights_sha256"]) == 64
        query = "tags.method = 'kd' and tags.seed = '1'"
        (found,) = client.search_runs([answers[TAUGHT.name]["experiment_id"]], query)
        assert found.data.tags["run"] == "digits/small/kd@large/seed1"

    def test_the_data_set_is_an_input(self, taught):
        found = {
            one.dataset.name: (one.dataset.digest, one.tags[0].key, one.tags[0].value)
            for one in taught.inputs.dataset_inputs
        }
        context = "mlflow.data.context"
        assert found == {"digits-train": ("d" * 36, context, "train"), "digits-test": ("d" * 36, context, "test")}

    def test_tables_pictures_and_records_are_artifacts(self, shared_project, answers, taught):
        folder = artifacts(shared_project, "tiny", taught.info.run_id)
        copies = {"run.json", "evaluation.json", "metrics.jsonl", "log.txt"}
        tables = {"per_class.csv", "confusion.csv"}
        pictures = {"confusion.png", "samples.png"}
        assert {file.name for file in folder.iterdir()} == copies | tables | pictures
        for name in copies:
            assert (folder / name).read_bytes() == (shared_project.root / TAUGHT.folder / name).read_bytes()
        for name in pictures:
            assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert taught.info.artifact_uri == f"mlflow-artifacts:/segkd/tiny/{taught.info.run_id}/artifacts"
        pretraining = artifacts(shared_project, "tiny", answers["digits/small/kd@large/autoencoder"]["mlflow_run_id"])
        assert {file.name for file in pretraining.iterdir()} == {"run.json", "metrics.jsonl", "log.txt"}

    def test_tables_say_what_evaluation_says(self, shared_project, taught):
        folder = artifacts(shared_project, "tiny", taught.info.run_id)
        classes = list(csv.reader((folder / "per_class.csv").open()))
        assert classes[0] == ["name", "iou", "accuracy", "boundary_iou", "pixels"]
        assert classes[1:] == [
            ["background", "0.9", "0.9", "", "10"],
            ["'=one", "0.1", "0.1", "", "10"],  # no formula for a spreadsheet
            ["two", "", "", "", "10"],
        ]
        confusion = list(csv.reader((folder / "confusion.csv").open()))
        assert [row[1:] for row in confusion[1:]] == [["90", "5", "5"], ["20", "70", "10"], ["0", "0", "0"]]

    def test_a_parent_shows_mean_and_spread_over_seeds(self, client, taught):
        parent = client.get_run(taught.data.tags["mlflow.parentRunId"])
        expected = {"test/miou_mean": 0.55, "test/miou_sd": math.sqrt(0.005), "test/miou_n": 2.0}
        assert parent.data.metrics == pytest.approx(expected)
        assert parent.info.status == "FINISHED"
        assert "run" not in parent.data.params and "seed" not in parent.data.params

    def test_status_begin_and_end(self, taught):
        assert (taught.info.status, taught.info.start_time, taught.info.end_time) == (
            "FINISHED",
            1763762000000,
            FINISHED,
        )

    @pytest.mark.fault("P5", "a replay that is done twice")
    def test_once_more_changes_nothing(self, shared_project, answers):
        before = rows(shared_project)
        assert track("tiny", shared_project.root) == answers
        assert rows(shared_project) == before


class TestAgain:
    """Replays of a run that went on, went back, was begun anew, or changed while it was read."""

    @pytest.fixture
    def one(self, ready: Any) -> Any:
        """A project whose study is one student alone, and its teacher untrained."""
        ready.study(seeds=(0,), methods=("none",))
        return ready

    def track(self, project: Any) -> str:
        return track("tiny", project.root)[PLAIN.name]["mlflow_run_id"]

    @pytest.mark.fault("P5", "a replay while a run goes on")
    def test_a_journal_that_grew_to_its_end(self, one, journal_in_mlflow):
        lines = one.lines(PLAIN)
        one.write_journal(PLAIN, lines[:21])
        first = self.track(one)
        assert one.metrics(first) == journal_in_mlflow(lines[:21])
        one.write_journal(PLAIN, lines[:40])
        assert self.track(one) == first
        assert one.metrics(first) == journal_in_mlflow(lines[:40])
        one.train(PLAIN)
        assert self.track(one) == first
        found = [row for row in one.metrics(first) if row[0].startswith(("train/", "val/"))]
        assert found == journal_in_mlflow(lines)
        assert one.sql("select status, end_time from runs where run_uuid = ?", first) == [("FINISHED", FINISHED)]
        assert one.sql("select count(*) from inputs") == [(2,)] and one.sql("select count(*) from datasets") == [(2,)]
        assert len(one.alive()) == 2

    def test_only_what_is_new_is_sent(self, one, monkeypatch):
        sent, measure = [], Store.measure

        def count(store: Store, run_id: str, points: Any) -> None:
            sent.append(len(points))
            measure(store, run_id, points)

        monkeypatch.setattr(Store, "measure", count)
        for number in (11, 11, 16):
            one.write_journal(PLAIN, one.lines(PLAIN)[:number])
            self.track(one)
        assert sent == [40, 20]

    @pytest.mark.fault("P5", "values that are not finite in a journal")
    def test_values_that_are_not_finite(self, one):
        lines = one.lines(PLAIN, count=10)
        lines[1] |= {"values": {"loss": None, "task": None}, "note": {"loss": "nan", "task": "inf"}}
        one.write_journal(PLAIN, lines)
        first, again = self.track(one), self.track(one)
        assert first == again
        one.write_journal(PLAIN, one.lines(PLAIN, count=10)[:1] + lines[1:] + [lines[-1] | {"iteration": 22}])
        assert self.track(one) == first
        query = "select key, is_nan, value from metrics where run_uuid = ? and step = 2 order by key"
        assert one.sql(query, first) == [("train/loss", 1, 0.0), ("train/task", 0, sys.float_info.max)]

    @pytest.mark.fault("P5", "a mirrored run that went back to its checkpoint")
    def test_a_run_that_went_back_to_its_checkpoint(self, one, journal_in_mlflow):
        lines = one.lines(PLAIN)
        one.write_journal(PLAIN, lines[:40])
        gone = self.track(one)
        resumed = lines[:20] + [line | {"time": line["time"] + 1000} for line in lines[20:45]]
        one.write_journal(PLAIN, resumed)
        found = self.track(one)
        assert one.metrics(found) == journal_in_mlflow(resumed)
        assert found != gone and one.alive("%seed 0") == [found]

    @pytest.mark.fault("P5", "a mirrored run that is evaluated again")
    def test_a_run_that_was_evaluated_again(self, one):
        one.train(PLAIN, miou=0.5)
        self.track(one)
        one.evaluate(PLAIN, miou=0.6)
        found = self.track(one)
        assert [row[3] for row in one.metrics(found) if row[0] == "test/miou"] == [0.6]
        assert one.alive("%seed 0") == [found]

    def test_a_run_that_was_begun_anew_leaves_the_old_one_to_be_seen(self, one):
        one.train(PLAIN)
        old = self.track(one)
        one.train(PLAIN, started=1763765000.0)
        new = self.track(one)
        assert one.alive("%seed 0") == [old, new]

    @pytest.mark.fault("P5", "files that change while they are sent")
    def test_files_that_change_while_they_are_sent(self, one, monkeypatch, journal_in_mlflow):
        lines = one.lines(PLAIN)
        one.write_journal(PLAIN, lines[:30])

        def write_artifacts(*_: Any) -> None:
            one.train(PLAIN)

        with monkeypatch.context() as patch:
            patch.setattr(mirror_module, "write_artifacts", write_artifacts)
            first = self.track(one)
        assert one.metrics(first) == journal_in_mlflow(lines[:30])
        assert self.track(one) == first
        assert set(journal_in_mlflow(lines)) < set(one.metrics(first))
        assert "test/miou" in {row[0] for row in one.metrics(first)}

    @pytest.mark.fault("P5", "an MLflow store that was lost")
    def test_a_store_that_was_lost_is_filled_again(self, one, database):
        one.train(PLAIN)
        before = one.metrics(self.track(one))
        (one.root / "mlflow.db").write_bytes(database.read_bytes())
        assert one.metrics(self.track(one)) == before
