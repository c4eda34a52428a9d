from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segkd.config.load import load_params
from segkd.config.runs import Run, describe, resolve, teacher_of

CLASSES = ["background", "=one", "two"]
STARTED = 1763762000.0  # 2025-11-21T21:53:20Z


class Project:
    """A folder with params.yaml, one study (teacher `large`, students alone and with kd) and synthetic run folders."""

    def __init__(self, root: Path):
        self.root = root
        (root / "workflow" / "studies").mkdir(parents=True)
        network = {"head": "fcn", "backbone": "resnet18", "width": 0.25}
        recipe = {
            "dataset": "digits",
            "iterations": 100,
            "batch": 4,
            "augmentation": {"crop": [48, 48]},
            "optimiser": {"name": "adamw", "lr": 0.003},
        }
        params = {
            "datasets": {"digits": {"kind": "digits"}},
            "networks": {"large": network, "small": network | {"width": 0.1}},
            "recipes": {"digits": recipe},
            "methods": {"none": {"method": "none"}, "kd": {"method": "kd", "temperature": 4.0, "preset": "paper"}},
        }
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        self.params = load_params(root / "params.yaml")

    def study(
        self, name: str = "tiny", seeds: tuple[int, ...] = (0, 1), methods: tuple[str, ...] = ("none", "kd")
    ) -> str:
        defaults = {"recipe": "digits", "teacher": "large", "student": "small", "seeds": list(seeds)}
        table = {"name": "main", "title": "Main", "cells": [{"method": method} for method in methods]}
        content = {"title": name, "defaults": defaults, "tables": [table]}
        (self.root / "workflow" / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return name

    def runs(self, seeds: tuple[int, ...] = (0, 1)) -> list[Run]:
        students = [
            Run("digits", "small", *method, seed) for method in (("none", None), ("kd", "large")) for seed in seeds
        ]
        return [Run("digits", "large"), *students]

    def lines(self, run: Run, count: int = 50, started: float = STARTED) -> list[dict[str, Any]]:
        seed = run.seed or 0
        train = [
            {
                "kind": "train",
                "iteration": 2 * k,
                "time": started + k,
                "values": {"loss": 2.0 / k + seed, "task": 1.0 / k, "kd": 0.5 / k, "lr": 0.003},
            }
            for k in range(1, count + 1)
        ]
        val = [
            {"kind": "val", "iteration": 2 * k, "time": started + k, "values": {"miou": k / 100}} for k in (10, count)
        ]
        start = {"kind": "event", "iteration": 0, "time": started, "event": "start", "detail": ""}
        return [start, *train, *val]

    def write_journal(self, run: Run, lines: list[dict[str, Any]]) -> Path:
        folder = self.root / run.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    def train(self, run: Run, miou: float = 0.5, count: int = 50, started: float = STARTED) -> Path:
        """The folder of a finished, evaluated run."""
        folder = self.write_journal(run, self.lines(run, count, started))
        resolved = resolve(self.params, run)
        teacher = teacher_of(self.params, run)
        done = {
            "format": 1,
            "run": run.name,
            "step": "student" if teacher else "teacher",
            "config": describe(resolved),
            "config_sha256": resolved.sha256(),
            "code": {"fingerprint": "f" * 64, "git_commit": "c" * 40, "git_dirty": False},
            "data": {"name": "digits", "sha256": "d" * 64},
            "teacher": {"run": teacher.name, "weights_sha256": "7" * 64} if teacher else None,
            "pretraining": None,
            "weights": {"file": "weights.safetensors", "sha256": f"{run.seed}" * 64, "bytes": 10},
            "best": None,
            "seed": run.seed,
            "versions": {"python": "3.11", "torch": "2.13", "numpy": "2", "segkd": "0.1"},
            "hardware": {"cpu": "x", "cores": 2, "threads": 1, "gpu": None, "memory_gb": 8.0},
            "timing": {
                "started": "2025-11-21T21:53:20+00:00",
                "finished": "2025-11-21T21:55:00+00:00",
                "wall_seconds": 100.0,
                "iterations": 100,
                "iterations_per_second": 1.0,
                "resumes": 0,
            },
            "memory": {"peak_rss_bytes": 1000, "peak_gpu_bytes": None},
            "parameters": 12345,
            "command": f"segkd student {run.name}",
        }
        (folder / "run.json").write_text(json.dumps(done))
        (folder / "log.txt").write_text("iteration 1\n")
        self.evaluate(run, miou)
        return folder

    def evaluate(self, run: Run, miou: float) -> None:
        folder = self.root / run.folder
        scores = {"miou": miou, "pixel_accuracy": 0.9, "boundary_iou": None, "ece": 0.05, "absent_classes": 1}
        names = [(name, iou) for name, iou in zip(CLASSES, (0.9, 0.1, None), strict=True)]
        evaluation = {
            "format": 1,
            "run": run.name,
            "split": "test",
            "protocol": {"short_side": None, "input_scale": 1.0, "absent_classes": "nan"},
            "classes": CLASSES,
            "images": 6,
            "weights_sha256": f"{run.seed}" * 64,
            "data_sha256": "d" * 64,
            "scores": scores,
            "per_class": [
                {"name": name, "iou": iou, "accuracy": iou, "boundary_iou": None, "pixels": 10} for name, iou in names
            ],
            "confusion": [[90, 5, 5], [20, 70, 10], [0, 0, 0]],
            "best": {"iteration": 60, "scores": scores | {"miou": miou + 0.01}},
            "cost": {"parameters": 12345, "flops": 10, "macs": 5, "input": [3, 48, 48], "latency_ms_median": 1.5},
            "wall_seconds": 1.0,
        }
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
        rng = np.random.default_rng(run.seed)
        pictures = {f"prediction_{k}": rng.integers(0, 3, (24, 32), dtype=np.uint8) for k in range(2)}
        np.savez(folder / "samples.npz", ids=np.array(["a", "b"]), **pictures)

    def pretrain(self, run: Run) -> Run:
        """The finished pretraining beside a student."""
        pretraining = Run(run.recipe, run.network, run.method, run.teacher, None)
        folder = self.train(pretraining)
        for name in ("evaluation.json", "samples.npz"):
            (folder / name).unlink()
        return pretraining

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the MLflow store, read past MLflow and past segkd."""
        with closing(sqlite3.connect(self.root / "mlflow.db")) as connection:
            return connection.execute(query, values).fetchall()

    def metrics(self, run_id: str) -> list[tuple[str, int, int, float]]:
        """(key, step, milliseconds, value) of every value that MLflow holds of a run, sorted."""
        query = "select key, step, timestamp, value from metrics where run_uuid = ?"
        return sorted(self.sql(query, run_id))

    def alive(self, name: str = "%") -> list[str]:
        """Ids of the runs that MLflow shows under a name."""
        query = "select run_uuid from runs where lifecycle_stage = 'active' and name like ? order by start_time"
        return [row[0] for row in self.sql(query, name)]


def told(lines: list[dict[str, Any]]) -> list[tuple[str, int, int, float]]:
    """What a journal's lines must become in MLflow: (key, step, milliseconds, value), sorted."""
    return sorted(
        (f"{line['kind']}/{name}", line["iteration"], int(line["time"] * 1000), value)
        for line in lines
        for name, value in line.get("values", {}).items()
    )


@pytest.fixture(scope="session")
def journal_in_mlflow() -> Callable[[list[dict[str, Any]]], list[tuple[str, int, int, float]]]:
    return told


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Project]:
    """A project whose MLflow store is there already, one for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made = Project(tmp_path_factory.mktemp("shared") / "a project")
        (made.root / "mlflow.db").write_bytes(database.read_bytes())
        yield made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Project(tmp_path / "a project")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, made once: setting one up takes a second and more."""
    from segkd.tracking.store import Store

    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store("sqlite:///mlflow.db", root)
    return root / "mlflow.db"


@pytest.fixture
def ready(project: Project, database: Path) -> Project:
    """A project whose MLflow store is there already."""
    (project.root / "mlflow.db").write_bytes(database.read_bytes())
    return project


@pytest.fixture
def client(project: Project) -> Callable[[], Any]:
    def connect() -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")

    return connect
