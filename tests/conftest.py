"""What all tests share: no telemetry, one thread, and a tiny project that the real steps run in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_project import TINY

os.environ.update(DVC_NO_ANALYTICS="1", MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1", OMP_NUM_THREADS="1")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def new_project(tmp_path: Path) -> Callable[..., Path]:
    """Make a project folder with a tiny params.yaml (changed by `change`), its data downloaded and prepared."""

    def make(name: str = "project", change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        import copy

        import yaml

        from segkd import steps

        params = copy.deepcopy(TINY)
        if change:
            change(params)
        root = tmp_path / name
        root.mkdir()
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        steps.download("digits", root=root)
        steps.prepare("digits", root=root)
        return root

    return make
