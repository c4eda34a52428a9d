"""Golden loss name -> the project's function, one module per family.

A module has LOSSES: name -> function(tensors, **params) that returns a Result (or the scalar of component "loss"), and
may have PROPERTIES for cases that state a property. Where the paper's and the released cases share a name but are not
the same thing, the keys are name@paper and name@released. A parameter that a function does not take is a TypeError:
the case fails.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Result:
    """values: component -> scalar; leaves: gradients asked for by names that are not inputs; state: to be digested."""

    values: dict[str, Tensor]
    leaves: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)


def _collect(kind: str) -> dict[str, Callable[..., Any]]:
    known: dict[str, Callable[..., Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        for name, function in getattr(importlib.import_module(f"{__name__}.{module.name}"), kind, {}).items():
            if name in known:
                raise ValueError(f"golden loss {name!r} is mapped twice")
            known[name] = function
    return known


LOSSES = _collect("LOSSES")
PROPERTIES = _collect("PROPERTIES")


def adapter(case: dict[str, Any]) -> Callable[..., Any] | None:
    """The function for a case, or None where no module knows its name."""
    kind = "paper" if "check" in case else "released"
    known = PROPERTIES if case.get("check") == "property" else LOSSES
    return known.get(case["loss"], known.get(f"{case['loss']}@{kind}"))
