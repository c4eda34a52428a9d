"""Every method trains two steps on digits, is stopped in between, goes on, and ends in the same bits."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_project import TINY
from torch import Tensor

from segkd import steps
from segkd.config.runs import Run
from segkd.errors import InterruptedRunError
from segkd.files import read_json
from segkd.methods.base import Progress
from segkd.methods.registry import available
from segkd.testing.check import configs
from segkd.training import loop
from segkd.training import state as states
from segkd.training.pretrain import has_pretraining

SMALL: dict[str, dict[str, Any]] = {
    "skd": {"critic_width": 4},
    "ifvd": {"critic_width": 4},
    "ka": {"latent": 16},
    "cirkd": {"pixel_memory": 50, "region_memory": 10},
}
EVERY = {
    f"{name}-{config.preset}": {"method": name, "preset": config.preset} | SMALL.get(name, {})
    for name in available()
    for config in configs(name)
}
STEADY = {"method": "skd", "critic_width": 4, "critic_poly": False}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[steps.Options, steps.Options]:
    """Two copies of a project with a trained teacher and what methods train before; an epoch is one step."""
    values, root = copy.deepcopy(TINY), tmp_path_factory.mktemp("every")
    values["datasets"]["digits"]["scenes"] = {"train": 4, "val": 2, "test": 2}
    values["networks"]["large"] |= {"attention": "cbam"}
    values["recipes"]["tiny"] |= {"iterations": 2, "evaluation": {"split": "test"}}
    values["methods"] |= EVERY | {"steady": STEADY}
    calm, troubled = root / "calm", root / "troubled"
    calm.mkdir()
    (calm / "params.yaml").write_text(yaml.safe_dump(values))
    steps.download("digits", root=calm)
    steps.prepare("digits", root=calm)
    steps.teacher(Run("tiny", "large"), steps.Options(root=calm))
    for name, entry in EVERY.items():
        if has_pretraining(str(entry["method"])):
            steps.autoencoder(Run("tiny", "small", name, "large", None), steps.Options(root=calm))
    shutil.copytree(calm, troubled)
    return steps.Options(root=calm), steps.Options(root=troubled)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Everything that each state file holds: student, method, optimisers, random state, running means."""
    written: list[dict[str, Tensor]] = []
    save = states.save_state

    def noting(folder: Path, state: states.State) -> Path:
        written.append({name: tensor.detach().clone() for name, tensor in state.tensors.items()})
        return save(folder, state)

    monkeypatch.setattr(states, "save_state", noting)
    return written


@pytest.fixture
def stop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM after the first update of this test."""
    update, waiting = loop.update, [True]

    def stopping(run: loop.Training, progress: Progress) -> None:
        update(run, progress)
        if waiting and waiting.pop():
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "update", stopping)


@pytest.mark.parametrize("method", EVERY)
def test_stopped_in_between_it_ends_in_the_same_bits(
    method: str, twins: tuple[steps.Options, steps.Options], saved: list[dict[str, Tensor]], stop_once: None
) -> None:
    calm, troubled = twins
    run = Run("tiny", "small", method, "large")
    with pytest.raises(InterruptedRunError, match="iteration 1 of 2"):
        steps.student(run, troubled)
    steps.student(run, troubled)
    steps.student(run, calm)
    stopped, resumed, undisturbed = saved
    assert set(resumed) == set(undisturbed)
    assert [name for name, tensor in resumed.items() if not torch.equal(tensor, undisturbed[name])] == []
    assert moved(stopped, resumed, "network.")
    digests = [read_json(o.root / run.folder / "run.json")["weights"]["sha256"] for o in (calm, troubled)]
    assert digests[0] == digests[1]


def moved(before: dict[str, Tensor], after: dict[str, Tensor], prefix: str) -> bool:
    return any(not torch.equal(before[n], after[n]) for n in before if n.startswith(prefix) and "running" not in n)


def test_states_hold_what_methods_remember(
    twins: tuple[steps.Options, steps.Options], saved: list[dict[str, Tensor]]
) -> None:
    for method in ("cirkd-paper", "skd-paper", "overhaul-paper"):
        steps.student(Run("tiny", "small", method, "large", 1), twins[0])
    kept = set().union(*saved)
    assert {"method.memory.pixel.entries", "method.memory.region.pointer", "method.seed"} <= kept
    assert {"method.discriminator.score.weight", "optimiser-own-discriminator.0.momentum_buffer"} <= kept
    assert {"method.margins.stage4.sums", "method.connectors.stage4.0.weight"} <= kept


@pytest.mark.parametrize(("method", "steady"), [("skd-paper", False), ("steady", True)])
def test_a_critics_rate_follows_the_schedule_unless_it_is_told_not_to(
    method: str, steady: bool, twins: tuple[steps.Options, steps.Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    update = loop.update_own

    def noting(run: loop.Training, progress: Progress) -> dict[str, Tensor]:
        rates.extend(group["lr"] for group in run.optimisers["own-discriminator"].param_groups)
        return update(run, progress)

    monkeypatch.setattr(loop, "update_own", noting)
    steps.student(Run("tiny", "small", method, "large", 2), twins[0])
    share = 1.0 if steady else 0.5**0.9
    assert rates == pytest.approx([4e-4, share * 4e-4])
