from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evaluation_fakes import IGNORE, slow_ece
from hypothesis import given
from hypothesis import strategies as st

from segkd.evaluation.calibration import LEVELS, confidence_histogram, expected_calibration_error, reliability

RESOLUTION = 1.001 / (2 * LEVELS)  # half a level, and float rounding


def histogram(confidence: np.ndarray, correct: np.ndarray, ignored: np.ndarray | None = None) -> torch.Tensor:
    label = np.where(correct, 0, 1).astype(np.uint8)
    if ignored is not None:
        label[ignored] = IGNORE
    prediction = torch.zeros(len(confidence), dtype=torch.uint8)
    return confidence_histogram(torch.from_numpy(confidence.astype(np.float32)), prediction, torch.from_numpy(label))


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_equals_the_definition(count, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1, count).astype(np.float32)
    correct, ignored = rng.random(count) < confidence, rng.random(count) < 0.2
    found = expected_calibration_error(histogram(confidence, correct, ignored))
    if ignored.all():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(slow_ece(confidence[~ignored], correct[~ignored]), abs=RESOLUTION + 1e-7)


def test_hand_computed_example():
    confidence, correct = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5]), np.array([1, 1, 1, 0, 1, 0], bool)
    # bins of 4 and 2 pixels: |0.75 - 0.9| and |0.5 - 0.5|
    assert expected_calibration_error(histogram(confidence, correct)) == pytest.approx(4 / 6 * 0.15, abs=2 * RESOLUTION)


def test_bins_are_equally_wide_and_the_last_is_closed():
    confidence = np.array([0.0, 1 / 15 + 1e-4, 0.5, 14 / 15 + 1e-4, 1.0])
    found = reliability(histogram(confidence, np.ones(5, bool)))
    assert found.pixels.nonzero().flatten().tolist() == [0, 1, 7, 14]
    assert found.pixels[14] == 2
    assert found.confidence[7] == pytest.approx(0.5, abs=RESOLUTION)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not():
    sure = np.ones(10)
    assert expected_calibration_error(histogram(sure, np.ones(10, bool))) == pytest.approx(0, abs=RESOLUTION)
    assert expected_calibration_error(histogram(sure, np.zeros(10, bool))) == pytest.approx(1, abs=RESOLUTION)


@given(st.integers(0, 50))
def test_parts_add_up_to_the_whole(cut):
    rng = np.random.default_rng(cut)
    confidence, correct = rng.random(50), rng.random(50) < 0.5
    parts = [histogram(confidence[part], correct[part]) for part in (slice(cut), slice(cut, None))]
    assert torch.equal(parts[0] + parts[1], histogram(confidence, correct))
