"""Every golden case through the project's own functions. SEGKD_GOLDENS=FILE[:FILE] gives other case files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import Result, adapter
from golden_compare import failures, memory_failures, summary
from golden_inputs import build, differences
from torch import Tensor

HERE = Path(__file__).parent
DEFAULT = [HERE / "goldens_paper_shared.json", HERE / "goldens_released_shared.json"]
GIVEN = os.environ.get("SEGKD_GOLDENS", "")
FILES = [Path(name) for name in GIVEN.split(":")] if GIVEN else DEFAULT


def _cases() -> list[Any]:
    cases = [(path, case) for path in FILES for case in json.loads(path.read_text())["cases"]]
    return [pytest.param(case, id=f"{path.stem.removeprefix('goldens_')}/{case['id']}") for path, case in cases]


def _inputs(case: dict[str, Any]) -> dict[str, Tensor]:
    tensors = build(case["inputs"], case["dtype"])
    assert differences(case, tensors) == [], "the inputs are not those of the case"
    return tensors


def _check_losses(case: dict[str, Any], function: Callable[..., Any]) -> list[str]:
    tensors = _inputs(case)
    leaves = {name: x.requires_grad_() if x.is_floating_point() else x for name, x in tensors.items()}
    result = function(leaves, **case["params"])
    if isinstance(result, Tensor):
        result = Result({"loss": result})
    leaves |= result.leaves
    faults = []
    for component, want in case["expected"].items():
        value = result.values[component]
        inputs = {name: leaves[name] for name in want["grads"]}
        got = torch.autograd.grad(value, list(inputs.values()), retain_graph=True, allow_unused=True) if inputs else ()
        gradients = {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(inputs.items(), got, strict=True)}
        faults += [f"{component}: {fault}" for fault in failures(case, component, value.item(), gradients, tensors)]
    return faults + _state(case, result.state)


def _state(case: dict[str, Any], state: dict[str, Tensor]) -> list[str]:
    """Faults of the state that the call left behind, where the case describes one."""
    faults, extra = [], case.get("extra") or {}
    expected = extra.get("queue_state_after") or ({"bank": extra["queue_after"]} if "queue_after" in extra else {})
    for name, want in expected.items():
        if isinstance(want, list):
            faults += [] if state[name].tolist() == want else [f"{name} {state[name].tolist()}, want {want}"]
            continue
        flat = state[name].double().flatten()
        got = {"sum": float(flat.sum()), "sumsq": float(flat.square().sum())}
        limit = 1e-6 * max(1, flat.numel() ** 0.5)
        faults += [f"{name}: {k} {v!r}, want {want[k]!r}" for k, v in got.items() if abs(v - want[k]) > limit]
        if max(abs(a - b) for a, b in zip(summary(flat)["head"], want["head"], strict=False)) > 1e-6:
            faults.append(f"{name}: first entries")
    return faults


def test_every_name_has_an_adapter() -> None:
    cases = [case for path in FILES for case in json.loads(path.read_text())["cases"]]
    assert sorted({case["loss"] for case in cases if adapter(case) is None}) == []


@pytest.mark.parametrize("case", _cases())
def test_case(case: dict[str, Any]) -> None:
    function = adapter(case)
    assert function is not None, f"no adapter knows the golden loss {case['loss']!r}"
    if case.get("check") == "property":
        tensors = _inputs(case)
        pixel, region = function(tensors, **case["params"])
        assert memory_failures(case, pixel, region, tensors) == []
    else:
        assert _check_losses(case, function) == []
