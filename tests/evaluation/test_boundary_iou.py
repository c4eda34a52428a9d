from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evaluation_fakes import IGNORE, labels, slow_boundary
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segkd.evaluation.boundary import boundary_iou, boundary_region, boundary_sums, thickness

CLASSES = 3
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
IDS = st.sampled_from([0, 0, 0, 1, 2, IGNORE])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    prediction = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2])))
    return prediction, draw(arrays.arrays(np.uint8, shape, elements=IDS))


def sums(prediction: np.ndarray, label: np.ndarray, ratio: float) -> list[list[int]]:
    return boundary_sums(torch.from_numpy(prediction)[None], torch.from_numpy(label)[None], CLASSES, ratio).tolist()


@settings(max_examples=200, deadline=None)
@given(pairs(), st.sampled_from([0.02, 0.1, 0.3]))
def test_equals_erosion_of_each_class(pair, ratio):
    prediction, label = pair
    distance = thickness(*label.shape, ratio)
    assert sums(prediction, label, ratio) == slow_boundary(prediction, label, CLASSES, distance).tolist()


def test_equals_erosion_of_each_class_at_a_real_size():
    label, prediction = labels(2, [(120, 160)], CLASSES)
    prediction[prediction == IGNORE] = 0
    assert thickness(120, 160) == 4
    assert sums(prediction, label, 0.02) == slow_boundary(prediction, label, CLASSES, 4).tolist()


def test_equals_the_distance_to_another_class():
    from scipy.ndimage import distance_transform_cdt

    label = labels(1, [(30, 41)], CLASSES)[0]
    expected = np.zeros(label.shape, bool)
    for ids in np.unique(label):
        mask = np.pad(label == ids, 1)
        near = (distance_transform_cdt(mask, "chessboard") <= 3) & mask
        expected |= near[1:-1, 1:-1]
    assert (boundary_region(torch.from_numpy(label)[None], 3)[0].numpy() == expected).all()


def test_hand_computed_square():
    # a 4 x 4 square on 8 x 8, prediction shifted by one column; thickness 1
    label, prediction = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    label[2:6, 2:6] = 1
    prediction[2:6, 3:7] = 1
    found = torch.tensor(sums(prediction, label, 0.02))
    # rims are 12 pixels each; they share the two rows' 3 columns, and nothing of the sides
    assert found[:, 1].tolist() == [6, 18]
    assert boundary_iou(found)[1] == pytest.approx(1 / 3)


@given(pairs())
def test_prediction_under_ignored_pixels_does_not_matter(pair):
    prediction, label = pair
    other = np.where(label == IGNORE, 2 - prediction, prediction)
    assert sums(prediction, label, 0.1) == sums(other, label, 0.1)


def test_perfect_prediction_scores_one_and_absent_classes_nan():
    label = labels(1, [(20, 20)], 2)[0]
    prediction = np.where(label == IGNORE, 1, label).astype(np.uint8)
    np.testing.assert_equal(boundary_iou(torch.tensor(sums(prediction, label, 0.02))).numpy(), [1, 1, math.nan])


def test_image_within_the_thickness_is_all_boundary():
    assert boundary_region(torch.zeros(1, 4, 9, dtype=torch.uint8), 2).all()


def test_batch_is_the_sum_of_its_images():
    truth = torch.from_numpy(np.stack(labels(4, [(24, 32)], CLASSES)))
    guess = torch.from_numpy(np.stack(labels(4, [(24, 32)], CLASSES, seed=1))).clamp(max=CLASSES - 1)
    single = [boundary_sums(guess[i : i + 1], truth[i : i + 1], CLASSES) for i in range(4)]
    assert torch.equal(boundary_sums(guess, truth, CLASSES), torch.stack(single).sum(0))


@pytest.mark.parametrize(("size", "expected"), [((360, 480), 12), ((48, 48), 1), ((1, 1), 1), ((1024, 2048), 46)])
def test_thickness_is_two_percent_of_the_diagonal(size, expected):
    assert thickness(*size) == expected
