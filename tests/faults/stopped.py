"""A small project with a teacher, and in it a student that was killed in mid-epoch, to be copied by each test."""

from __future__ import annotations

import copy
from pathlib import Path

import yaml
from killing import attempt
from tiny_project import TINY

from segkd import steps
from segkd.config.runs import Run

TEACHER = Run("tiny", "large")
TAUGHT = Run("tiny", "small", "kd", "large")


def eight_images(root: Path, *methods: str) -> Path:
    """A project with 8 images to train on, in batches of 2, prepared; kd and these methods can be trained."""
    params = copy.deepcopy(TINY)
    params["datasets"]["digits"]["scenes"] = {"train": 8, "val": 4, "test": 2}
    params["recipes"]["tiny"]["batch"] = 2
    params["methods"] |= {name: {"method": name} for name in methods}
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    steps.download("digits", root=root)
    steps.prepare("digits", root=root)
    return root


def killed_in_mid_epoch(root: Path) -> Path:
    """The project with a finished teacher and a student killed in its third update, two states behind it."""
    eight_images(root)
    assert attempt(root, TEACHER) == 0
    assert attempt(root, TAUGHT, crash="updated:3") == -9
    return root
