"""What holds for every method on inputs of any size, with any labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.methods.registry import available, method_config
from segkd.testing.cases import CLASSES, Case, draw_case, draw_labels
from segkd.testing.check import configs
from segkd.testing.degenerate import infinite
from segkd.testing.ignored import labelled_terms
from segkd.testing.subject import MIDDLE, START, Subject, fitting, state, step, unequal

QUICK = {"skd": {"critic_width": 4}, "ifvd": {"critic_width": 4}, "cirkd": {"pixel_memory": 40, "region_memory": 8}}
SUBJECTS: dict[tuple[str, str], Subject] = {}


def subject(name: str, preset: str) -> Subject:
    if (name, preset) not in SUBJECTS:
        config = method_config(name, {"preset": preset} | QUICK.get(name, {}))
        SUBJECTS[name, preset] = fitting(name, config)
    return SUBJECTS[name, preset]


sides = st.integers(1, 48)


@st.composite
def cases(draw: st.DrawFn, of: Subject) -> Case:
    """Any size, classes absent, any share of pixels ignored, whole rows among them; one to three images."""
    size, images = (draw(sides), draw(sides)), draw(st.integers(1, 3))
    case = draw_case(of.channels, images=images, size=size, seed=draw(st.integers(0, 99)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    share = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    labels = draw_labels(images, size, generator, classes=draw(st.integers(1, CLASSES)), ignored=share)
    labels[:, : draw(st.integers(0, size[0]))] = 255
    return case.labelled(labels)


@pytest.mark.parametrize(("name", "preset"), [(n, c.preset) for n in available() for c in configs(n)])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_finite_the_same_twice_and_zero_without_labels(name: str, preset: str, data: st.DataObject) -> None:
    one = subject(name, preset)
    case = data.draw(cases(one))
    assert infinite(one, case, "drawn") is None
    runs = []
    for _ in range(2):
        method = one.method()
        result = step(method, case, START)
        runs.append(result.terms | result.student | {f"state {k}": v for k, v in state(method).items()})
    assert unequal(*runs) == []
    if bool((case.labels == 255).all()):
        blind = step(one.method(), case, MIDDLE, only=labelled_terms(one))
        assert not any(bool(slope.any()) for slope in blind.student.values())
