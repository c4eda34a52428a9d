"""Two runs of one configuration and seed: how far they lie apart is a row of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_runs import iou, make_params, make_study, weights, write_run, write_study, write_usual

from segkd.config.params import Params
from segkd.config.runs import Run
from segkd.report.build import report
from segkd.report.collect import collect
from segkd.report.noise import ON_CPU, STRICT, noise_floor
from segkd.report.provenance import facts

TITLE = "two runs of the same differ by"
FIRST, AGAIN = Run("tiny", "small", "kd", "large", 0), Run("tiny", "small", "again", "large", 0)
GPU = {"cpu": "A processor", "cores": 8, "threads": 1, "gpu": "A GPU", "memory_gb": 8}
FAST, STRICTLY = ({"hardware": GPU, "determinism": {"mode": mode}} for mode in ("fast", "strict"))


def lines(root: Path, params: Params) -> list[str]:
    study = make_study({"method": "kd"}, {"method": "again"})
    return noise_floor(collect("s", study, params, root))


@pytest.fixture
def params(tmp_path: Path) -> Params:
    """`again` is `kd` under a second name."""
    return make_params(tmp_path, again={"method": "kd"})


def write(root: Path, params: Params, run: Run, right: float, record: dict[str, Any]) -> None:
    write_run(root, params, run, right, record=record)


def test_the_difference_of_two_runs_of_the_same(tmp_path: Path, params: Params) -> None:
    write(tmp_path, params, FIRST, 60, FAST)
    write(tmp_path, params, AGAIN, 61, FAST)
    points = f"{iou(61) - iou(60):.2f} points of mIoU, different weights"
    (line,) = lines(tmp_path, params)
    assert line.startswith(points) and "determinism: fast on A GPU" in line
    assert FIRST.name in line and AGAIN.name in line


def test_equal_weights_are_called_equal(tmp_path: Path, params: Params) -> None:
    write(tmp_path, params, FIRST, 60, FAST)
    same = {"file": "weights.safetensors", "sha256": weights(FIRST), "bytes": 1000}
    write(tmp_path, params, AGAIN, 60, FAST | {"weights": same})
    (line,) = lines(tmp_path, params)
    assert line.startswith("0.00 points of mIoU, equal weights")


@pytest.mark.parametrize(
    "other",
    [
        {"code": {"fingerprint": "beef" * 16}},
        {"data": {"name": "digits", "sha256": "beef" * 16}},
        {"teacher": {"run": "tiny/large/none/seed0", "weights_sha256": "beef" * 16}},
        {"versions": {"torch": "2.12.0"}},
        {"hardware": GPU | {"gpu": "Another GPU"}},
        {"determinism": {"mode": "strict"}},
        {"drift": ["torch: 2.12.0 -> 2.13.0"]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_runs_that_differ_in_anything_that_decides_are_no_pair(
    tmp_path: Path, params: Params, other: dict[str, Any]
) -> None:
    write(tmp_path, params, FIRST, 60, FAST)
    write(tmp_path, params, AGAIN, 61, FAST | other)
    assert not any("points of mIoU" in line for line in lines(tmp_path, params))


def test_other_seeds_and_other_settings_are_no_pair(tmp_path: Path) -> None:
    params = make_params(tmp_path, again={"method": "kd", "temperature": 2.0})
    write(tmp_path, params, FIRST, 60, FAST)
    write(tmp_path, params, AGAIN, 61, FAST)
    write(tmp_path, params, Run("tiny", "small", "kd", "large", 1), 62, FAST)
    (line,) = lines(tmp_path, params)
    assert line.startswith("not measured under determinism: fast on A GPU")


def test_what_is_known_without_a_second_run(tmp_path: Path, params: Params) -> None:
    assert lines(tmp_path, params) == []  # nothing trained yet
    write(tmp_path, params, FIRST, 60, STRICTLY)
    assert lines(tmp_path, params) == [STRICT]
    write(tmp_path, params, AGAIN, 61, {})
    assert lines(tmp_path, params) == [ON_CPU, STRICT] or lines(tmp_path, params) == [STRICT, ON_CPU]


def test_it_stands_on_the_page(tmp_path: Path) -> None:
    params, study = make_params(tmp_path), make_study()
    write_usual(tmp_path, params)
    write_study(tmp_path, "s", study)
    assert dict(facts(collect("s", study, params, tmp_path)))[TITLE] == [ON_CPU]
    page = (report("s", root=tmp_path) / "index.html").read_text()
    assert f"<dt>{TITLE}</dt><dd>{ON_CPU}</dd>" in page
