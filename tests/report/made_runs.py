"""Run folders as training and evaluation would leave them, with pixel sums chosen so that every score is known."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tiny_project import TINY

from segkd.config.load import load_params
from segkd.config.params import Params
from segkd.config.runs import Run, describe, resolve, teacher_of
from segkd.config.study import Study

IMAGES, PIXELS = 4, 100  # images; labelled pixels per class and image
CLASSES = ("sky", "road", "car")
TEACHER = Run("tiny", "large")
# right pixels per class and image -> IoU = right / (200 - right), the same for every class
RIGHT = {
    "teacher": {0: 90},
    "none": {0: 40, 1: 50, 2: 60},
    "kd": {0: 60, 1: 70, 2: 80},
}


def iou(right: float) -> float:
    """Percent: as many pixels are wrongly given to a class as are missed of it."""
    return 100 * right / (2 * PIXELS - right)


def make_params(root: Path, **methods: dict[str, Any]) -> Params:
    content = copy.deepcopy(TINY)
    content["methods"] |= methods
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    return load_params(root / "params.yaml")


def write_study(root: Path, name: str, study: Study) -> None:
    """The study as workflow/studies/<name>.yaml."""
    folder = root / "workflow/studies"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True)))


def write_missing(root: Path, runs: dict[str, str], *needs: dict[str, Any]) -> None:
    """What the availability check leaves."""
    path = root / "data/receipts/missing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "runs": runs, "needs": list(needs)}))


def right_for(percent: float) -> float:
    """Right pixels per class and image that give this mIoU: the inverse of `iou`."""
    return 2 * PIXELS * percent / (100 + percent)


def published(miou: float, **changes: Any) -> dict[str, Any]:
    """A published value on the split that made runs are scored on."""
    return {"miou": miou, "split": "test", "source": "a paper"} | changes


def make_study(*cells: dict[str, Any], **changes: Any) -> Study:
    content = {
        "title": "A study",
        "defaults": {"recipe": "tiny", "teacher": "large", "student": "small", "seeds": [0, 1, 2]},
        "tables": [
            {"name": "main", "title": "Students", "cells": list(cells) or [{"method": "none"}, {"method": "kd"}]}
        ],
    }
    return Study.model_validate(content | changes)


def write_usual(root: Path, params: Params) -> None:
    """One teacher, three students alone and three with kd."""
    write_run(root, params, TEACHER, RIGHT["teacher"][0])
    for seed in (0, 1, 2):
        write_run(root, params, Run("tiny", "small", "none", None, seed), RIGHT["none"][seed])
        write_run(root, params, Run("tiny", "small", "kd", "large", seed), RIGHT["kd"][seed])


def write_run(root: Path, params: Params, run: Run, right: float, **changes: Any) -> Path:
    """A trained and evaluated run; `changes` overwrite keys of evaluation.json, `record` those of run.json."""
    folder = root / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    record = make_record(params, run) | changes.pop("record", {})
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "log.txt").write_text("trained\n")
    evaluation = make_evaluation(run, right, record["weights"]["sha256"]) | changes
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    sums = np.full((IMAGES, len(CLASSES)), right, np.int64)
    full = np.full_like(sums, PIXELS)
    ids = np.array([f"image{place}" for place in range(IMAGES)])
    np.savez(folder / "per_image.npz", ids=ids, intersection=sums, label=full, prediction=full)
    lines = [_line("train", k, {"loss": 3.0 / k, "task": 2.0 / k, "lr": 0.1}) for k in range(1, 7)]
    lines += [_line("val", k, {"miou": k * iou(right) / 600}) for k in (3, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _line(kind: str, iteration: int, values: dict[str, float]) -> dict[str, Any]:
    return {"kind": kind, "iteration": iteration, "time": 1763762000.0 + iteration, "values": values}


def make_record(params: Params, run: Run) -> dict[str, Any]:
    teacher = teacher_of(params, run)
    step = "student" if run.teacher or run.network == "small" else "teacher"
    return {
        "format": 1,
        "run": run.name,
        "step": step,
        "config": describe(resolve(params, run)),
        "config_sha256": resolve(params, run).sha256(),
        "code": {"fingerprint": "c0de" * 16, "git_commit": "ab" * 20, "git_dirty": False},
        "data": {"name": "digits", "sha256": "da7a" * 16},
        "teacher": {"run": teacher.name, "weights_sha256": weights(teacher)} if teacher else None,
        "pretraining": None,
        "weights": {"file": "weights.safetensors", "sha256": weights(run), "bytes": 1000},
        "best": None,
        "seed": run.seed,
        "versions": {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.3.0", "segkd": "0.1.0"},
        "hardware": {"cpu": "A processor", "cores": 2, "threads": 1, "gpu": None, "memory_gb": 8},
        "timing": {
            "started": "2025-11-21T10:00:00Z",
            "finished": f"2025-11-21T10:00:{20 + (run.seed or 0)}Z",
            "wall_seconds": 20.0 + (run.seed or 0),
            "iterations": 6,
            "iterations_per_second": 10.0,
            "resumes": 0,
        },
        "memory": {"peak_rss_bytes": 400_000_000, "peak_gpu_bytes": None},
        "parameters": 62_000,
        "command": f"segkd {step} {run.name}",
    }


def weights(run: Run) -> str:
    return run.name.encode().hex().ljust(64, "0")[-64:]


def make_evaluation(run: Run, right: float, weights_sha256: str) -> dict[str, Any]:
    value = iou(right) / 100
    scores = {
        "miou": value,
        "pixel_accuracy": right / PIXELS,
        "class_accuracy": right / PIXELS,
        "frequency_weighted_iou": value,
        "boundary_iou": value / 2,
        "ece": 0.125,
        "absent_classes": 0,
    }
    per_class = [
        {"name": name, "iou": value, "accuracy": right / PIXELS, "boundary_iou": value / 2, "pixels": IMAGES * PIXELS}
        for name in CLASSES
    ]
    return {
        "format": 1,
        "run": run.name,
        "split": "test",
        "protocol": {"short_side": None, "input_scale": 1.0, "absent_classes": "nan"},
        "classes": list(CLASSES),
        "images": IMAGES,
        "weights_sha256": weights_sha256,
        "data_sha256": "da7a" * 16,
        "scores": scores,
        "per_class": per_class,
        "confusion": [],
        "best": {"iteration": 3, "scores": scores | {"miou": value + 0.01}},
        "cost": {
            "parameters": 62_000 if run.network == "small" else 340_000,
            "flops": 12_400_000 if run.network == "small" else 60_000_000,
            "macs": 6_200_000,
            "input": [3, 32, 32],
            "latency_ms_median": 2.0,
            "latency_ms_p90": 2.5,
            "latency_device": "cpu",
            "latency_threads": 1,
        },
        "wall_seconds": 1.0,
    }
