"""`compile: true` compiles what is trained, and nothing that a result is scored or saved by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segkd import steps
from segkd.config.load import load_params
from segkd.config.runs import Run, resolve
from segkd.files import read_json
from segkd.networks.weights import read

ALONE, TAUGHT = Run("tiny", "small"), Run("tiny", "small", "kd", "large")
TEACHER = Run("tiny", "large")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compile without a compiler, which would take minutes: notes whether each call of a graph found training on."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            seen.append("gradients" if torch.is_grad_enabled() else "none")
            return graph.forward(*arguments)

        return run

    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend=backend))
    return seen


def compiled(params: dict[str, Any]) -> None:
    params["recipes"]["tiny"]["compile"] = True


def test_teacher_and_student_run_compiled_and_are_scored_and_saved_as_ever(
    new_project: Callable[..., Path], graphs: list[str]
) -> None:
    plain, fast = new_project("plain"), new_project("fast", compiled)
    steps.teacher(TEACHER, steps.Options(root=plain))
    shutil.copytree(plain / TEACHER.folder, fast / TEACHER.folder)
    for root in (plain, fast):
        steps.student(TAUGHT, steps.Options(root=root))
        assert graphs.count("gradients") == graphs.count("none") == (6 if root is fast else 0)
    keys = [set(read(root / TAUGHT.folder / "weights.safetensors")) for root in (plain, fast)]
    assert keys[0] == keys[1]
    records = [read_json(root / TAUGHT.folder / "run.json") for root in (plain, fast)]
    assert records[0]["best"]["miou"] == records[1]["best"]["miou"]  # same operations here: the graph as it was traced


def test_it_is_a_part_of_the_configuration(new_project: Callable[..., Path]) -> None:
    shas = [
        resolve(load_params(new_project(name, change) / "params.yaml"), ALONE).sha256()
        for name, change in (("plain", None), ("fast", compiled))
    ]
    assert shas[0] != shas[1]
