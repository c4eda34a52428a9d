"""Pass or fail of one component of a golden case: value, and per gradient its norm, first entries, sum and a probe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

TOLERANCES = {  # of released cases; paper cases bring their own
    "float64": {"value_rtol": 1e-9, "value_atol": 1e-12, "grad_rtol": 1e-8, "grad_atol": 1e-12},
    "float32": {"value_rtol": 2e-5, "value_atol": 1e-6, "grad_rtol": 1e-4, "grad_atol": 1e-6},
}
NO_VALUE, NO_NORM = 1e-9, 1e-8  # of paper cases: expected values and gradient norms below these are taken as zero
CHECKS = {"exact", "exact_live", "value", "finite"}


def live_mask(x: Tensor) -> Tensor:
    """1 where the vector over dim 1 has any entry that is not zero, else 0; shape of `x`."""
    return (x.detach().abs().sum(1, keepdim=True) > 0).to(x.dtype).expand_as(x)


def summary(gradient: Tensor) -> dict[str, Any]:
    """The figures that a golden file stores of a gradient; the probe is sin(0.37 k + 0.11), k = 0, 1, ..."""
    flat = gradient.detach().double().flatten()
    probe = torch.sin(torch.arange(flat.numel(), dtype=torch.float64) * 0.37 + 0.11)
    figures = {"norm": float(flat.norm()), "sum": float(flat.sum()), "probe": float((flat * probe).sum())}
    return {"shape": list(gradient.shape), "head": flat[:8].tolist(), **figures}


def failures(
    case: dict[str, Any], component: str, value: float, gradients: dict[str, Tensor], tensors: dict[str, Tensor]
) -> list[str]:
    """Everything that is wrong with a component's value and gradients; empty = pass."""
    want, check = case["expected"][component], case.get("check", "exact")
    tolerance = case.get("tolerance", TOLERANCES[case["dtype"]])
    if check not in CHECKS:
        return [f"unknown check {check!r}"]
    faults = [f"gradient of {name} is not finite" for name, g in gradients.items() if not bool(g.isfinite().all())]
    if not math.isfinite(value):
        faults.append("value is not finite")
    if faults or check == "finite":
        return faults
    limit = tolerance["value_atol"] if abs(want["value"]) < NO_VALUE else tolerance["value_rtol"] * abs(want["value"])
    zero = NO_NORM if "tolerance" in case else 0.0  # one released gradient is truly as small as 1.5e-9
    if abs(value - want["value"]) > limit:
        faults.append(f"value {value!r}, want {want['value']!r}")
    if check == "value":
        return faults
    for name, figures in want["grads"].items():
        if name not in gradients:
            faults.append(f"no gradient for {name}")
            continue
        gradient = gradients[name] * live_mask(tensors[name]) if check == "exact_live" else gradients[name]
        faults += [f"gradient of {name}: {fault}" for fault in _gradient(summary(gradient), figures, tolerance, zero)]
    return faults


def _gradient(got: dict[str, Any], want: dict[str, Any], tolerance: dict[str, float], zero: float) -> list[str]:
    if got["shape"] != want["shape"]:
        return [f"shape {got['shape']}, want {want['shape']}"]
    if want["norm"] <= zero:
        return [f"norm {got['norm']:.3e}, want 0"] if got["norm"] > tolerance["grad_atol"] else []
    limit = tolerance["grad_rtol"] * want["norm"]
    pairs = [("norm", got["norm"], want["norm"], limit)]
    pairs += [(f"entry {k}", *both, limit) for k, both in enumerate(zip(got["head"], want["head"], strict=True))]
    pairs += [(key, got[key], want[key], 3 * limit) for key in ("sum", "probe")]
    return [f"{key} {a!r}, want {b!r}" for key, a, b, room in pairs if abs(a - b) > room]


def memory_failures(
    case: dict[str, Any], pixel: dict[int, Tensor], region: dict[int, Tensor], tensors: dict[str, Tensor]
) -> list[str]:
    """Property of one update of an empty memory. pixel, region: class -> (rows, d), the written slots in slot order."""
    limit = 1e-10 if case["dtype"] == "float64" else 2e-6
    faults = []
    for label in range(case["params"]["classes"]):
        entries = [entry for entry in case["expected"]["update"]["entries"] if entry["class"] == label]
        pixels, regions = pixel.get(label, torch.empty(0)), region.get(label, torch.empty(0))
        counts = (len(pixels), len(regions))
        if counts != (sum(entry["k"] for entry in entries), len(entries)):
            faults.append(f"class {label}: {counts} pixel and region rows")
            continue
        start = 0
        for row, entry in zip(regions, entries, strict=True):
            rows, start = pixels[start : start + entry["k"]], start + entry["k"]
            if (row.double() - torch.tensor(entry["region"], dtype=torch.float64)).abs().max() > limit:
                faults.append(f"class {label}, image {entry['image']}: region row")
            feature = tensors["teacher"][entry["image"]].double().flatten(1).T[entry["positions"]]
            feature = feature / feature.norm(dim=1, keepdim=True).clamp(min=1e-12)
            close = (rows.double()[:, None] - feature[None]).abs().amax(2) <= limit
            if not _all_matched(close):
                faults.append(f"class {label}, image {entry['image']}: rows that are no different pixels of that class")
    return faults


def _all_matched(close: Tensor) -> bool:
    """Whether every row can be given a column of its own among those that are true (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in close[row].nonzero().flatten().tolist():
            if column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(close)))
