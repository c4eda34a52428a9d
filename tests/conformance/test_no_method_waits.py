"""No method asks its device for a number while it trains: on a GPU the host would wait there at every step.

Seen on a CPU, where the same operations are called; of copies to the device only those that follow a question are seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segkd.methods.registry import available
from segkd.testing.check import configs
from segkd.testing.subject import critic_step, fitting, step

aten = torch.ops.aten
ASKING = {  # their result's value or size must be known to the host
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.unique_consecutive,
    aten._unique2,
    aten.unique_dim,
    aten.bincount,
    aten.repeat_interleave,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
QUICK = {"skd": {"critic_width": 4}, "ifvd": {"critic_width": 4}}
CASES = [(name, config.preset) for name in available() for config in configs(name)]


class Questions(TorchDispatchMode):
    """The operations inside that make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = func._overloadpacket
        masks = kind in INDEXING and any(x is not None and x.dtype in {torch.bool, torch.uint8} for x in args[1])
        if masks or kind in ASKING:
            self.asked.append(str(kind))
        return func(*args, **(kwargs or {}))


def asked(name: str, preset: str) -> list[str]:
    """Questions of a method's second step; the first may look at what never changes."""
    (config,) = configs(name, {"preset": preset} | QUICK.get(name, {}))
    subject = fitting(name, config)
    method, case = subject.method(), subject.case()
    step(method, case)
    critic_step(method, case)
    with Questions() as questions:
        step(method, case)
        critic_step(method, case)
    return questions.asked


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_no_step_asks_the_device(name: str, preset: str) -> None:
    assert asked(name, preset) == []


@pytest.mark.parametrize(
    "question",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x.masked_fill_(x > 0, 1.0)[x < 0],
    ],
)
def test_questions_are_noticed(question: Any) -> None:
    with Questions() as questions:
        question(torch.randn(3))
    assert questions.asked
