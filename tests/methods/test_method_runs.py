"""Whole runs of methods with state or with moods of their own: stopped and resumed, they end in the same bits."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from tiny_project import TINY

from segkd import steps
from segkd.config.runs import Run
from segkd.errors import ConfigError, InterruptedRunError
from segkd.files import read_json
from segkd.methods.base import Progress
from segkd.training import loop

METHODS = {
    "dsd": {"method": "dsd"},
    "dsd-released": {"method": "dsd", "preset": "released"},
    "aicsd": {"method": "aicsd"},
    "aicsd-released": {"method": "aicsd", "preset": "released"},
    "attnfd": {"method": "attnfd"},
    "attnfd-released": {"method": "attnfd", "preset": "released"},
    "overhaul": {"method": "overhaul", "connectors_first": True},
    "mgd": {"method": "mgd"},
    "af-dcd": {"method": "af-dcd", "groups": 4},
    "dist": {"method": "dist"},
    "sp": {"method": "sp"},
    "ickd": {"method": "ickd"},
    "icsd": {"method": "icsd"},
}
STILL = {"aicsd-released", "attnfd-released", "overhaul"}  # their student stands still in epoch 0
PER_EPOCH = 4


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two copies of a project whose teacher, with attention, is trained."""
    values, root = copy.deepcopy(TINY), tmp_path_factory.mktemp("methods")
    values["networks"]["large"] |= {"attention": "cbam"}
    values["methods"] |= METHODS
    values["recipes"]["tiny"] |= {"evaluation": {"split": "test"}}
    calm, troubled = root / "calm", root / "troubled"
    calm.mkdir()
    (calm / "params.yaml").write_text(yaml.safe_dump(values))
    steps.download("digits", root=calm)
    steps.prepare("digits", root=calm)
    steps.teacher(Run("tiny", "large"), steps.Options(root=calm))
    shutil.copytree(calm, troubled)
    return calm, troubled


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Per update, whether it moved the student's and the method's weights; the fifth is followed by a stop, once."""
    update, seen = loop.update, []

    def watching(run: loop.Training, progress: Progress) -> None:
        before = {name: [p.clone() for p in part.parameters()] for name, part in run.learner.modules.items()}
        update(run, progress)
        moved = [
            any(not torch.equal(p, q) for p, q in zip(part.parameters(), before[name], strict=True))
            for name, part in run.learner.modules.items()
        ]
        seen.append((moved[0], moved[1]))
        if len(seen) == PER_EPOCH + 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "update", watching)
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_in_the_same_bits(
    method: str, twins: tuple[Path, Path], watched: list[tuple[bool, bool]]
) -> None:
    run = Run("tiny", "small", method, "large")
    calm, troubled = (steps.Options(root=root) for root in twins)
    with pytest.raises(InterruptedRunError):
        steps.student(run, troubled)
    steps.student(run, troubled)
    student = [moved for moved, _ in watched]
    assert student == [method not in STILL] * PER_EPOCH + [True] * 2
    steps.student(run, calm)
    digests = [read_json(root / run.folder / "run.json")["weights"]["sha256"] for root in twins]
    assert digests[0] == digests[1]


def test_a_teacher_without_attention_is_refused_in_preset_paper_only(twins: tuple[Path, Path]) -> None:
    options = steps.Options(root=twins[0])
    steps.student(Run("tiny", "small"), options)
    with pytest.raises(ConfigError, match="teacher trained with attention: cbam"):
        steps.student(Run("tiny", "large", "attnfd", "small"), options)
