"""The inputs of a golden case, drawn bit for bit from its description, and the proof that they are the right ones.

One CPU generator per case, seeded; tensors in the listed order; floats are standard normal in float64, scaled and
shifted, transformed, marred where the case says so, rounded to float32 and cast to the case's type. Labels are uniform
class ids in blocks, with absent classes replaced, then ignored pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_FLOAT_KEYS = {"name", "kind", "shape", "scale", "shift", "transform", "normalize", "copy_of", "tile"} | {
    "zero_image",
    "zero_channel",
    "zero_position",
    "const_image",
}
_LABEL_KEYS = {"name", "kind", "shape", "classes", "block", "absent", "ignore", "ignore_image", "tile"}


def build(inputs: dict[str, Any], dtype: str) -> dict[str, Tensor]:
    """Name -> tensor of the case: floats in `dtype`, labels int64. A key that the rule does not know is an error."""
    generator = torch.Generator().manual_seed(inputs["seed"])
    tensors: dict[str, Tensor] = {}
    for spec in inputs["tensors"]:
        unknown = set(spec) - (_LABEL_KEYS if spec["kind"] == "labels" else _FLOAT_KEYS)
        if unknown:
            raise KeyError(f"the drawing rule knows no {sorted(unknown)}")
        if spec["kind"] == "labels":
            tensors[spec["name"]] = _labels(spec, generator)
        else:
            tensors[spec["name"]] = _floats(spec, generator, tensors).float().to(DTYPES[dtype])
    return tensors


def _floats(spec: dict[str, Any], generator: torch.Generator, earlier: dict[str, Tensor]) -> Tensor:
    if spec.get("tile"):
        first = _floats({**spec, "tile": False, "shape": [1, *spec["shape"][1:]]}, generator, earlier)
        return first.repeat(spec["shape"][0], *(1 for _ in spec["shape"][1:]))
    if "copy_of" in spec:
        return earlier[spec["copy_of"]].double().clone()
    if spec.get("transform") == "const":
        return torch.full(spec["shape"], float(spec.get("shift", 0)), dtype=torch.float64)
    x = torch.randn(spec["shape"], generator=generator, dtype=torch.float64)
    return _marred(_transformed(x * spec.get("scale", 1.0) + spec.get("shift", 0.0), spec.get("transform")), spec)


def _transformed(x: Tensor, transform: str | None) -> Tensor:
    known = {
        None: lambda: x,
        "relu": lambda: x.clamp_min(0),
        "abs": x.abs,
        "smooth": lambda: functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    }
    return known[transform]()


def _marred(x: Tensor, spec: dict[str, Any]) -> Tensor:
    if "normalize" in spec:
        x = x / x.norm(dim=spec["normalize"], keepdim=True)
    if "zero_image" in spec:
        x[spec["zero_image"]] = 0
    for channel in spec.get("zero_channel", []):
        x[:, channel] = 0
    for row, column in spec.get("zero_position", []):
        x[..., row, column] = 0
    if "const_image" in spec:
        image, value = spec["const_image"]
        x[image] = value
    return x


def _labels(spec: dict[str, Any], generator: torch.Generator) -> Tensor:
    batch, height, width = spec["shape"]
    if spec.get("tile"):
        return _labels({**spec, "tile": False, "shape": [1, height, width]}, generator).repeat(batch, 1, 1)
    classes, block, absent = spec["classes"], spec.get("block", 1), set(spec.get("absent", []))
    y = torch.randint(0, classes, (batch, -(-height // block), -(-width // block)), generator=generator)
    y = y.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :height, :width].contiguous()
    for missing in sorted(absent):
        present = next(c % classes for c in range(missing + 1, missing + 1 + classes) if c % classes not in absent)
        y[y == missing] = present
    if spec.get("ignore", 0) > 0:
        y[torch.rand((batch, height, width), generator=generator, dtype=torch.float64) < spec["ignore"]] = 255
    if "ignore_image" in spec:
        y[spec["ignore_image"]] = 255
    return y


def differences(case: dict[str, Any], tensors: dict[str, Tensor], tolerance: float = 1e-12) -> list[str]:
    """What distinguishes the drawn tensors from the case's digests: an empty list proves them right."""
    faults = []
    for name, want in case["input_digests"].items():
        flat = tensors[name].double().flatten()
        got = {"sum": float(flat.sum()), "sumsq": float(flat.square().sum())}
        if list(tensors[name].shape) != want["shape"] or flat[:4].tolist() != want["head"]:
            faults.append(f"{name}: shape or first values")
        faults += [
            f"{name}: {key} {value!r}, want {want[key]!r}"
            for key, value in got.items()
            if abs(value - want[key]) > tolerance * max(1.0, abs(want[key]))
        ]
    return faults
