from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evaluation_fakes import IGNORE, slow_confusion
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from segkd.errors import DataError
from segkd.evaluation.confusion import confusion, scores

CLASSES = 5
DTYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


@st.composite
def maps(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and label of any size; classes may be absent, everything may be ignored."""
    size = draw(st.integers(1, 200))
    ids = st.lists(st.sampled_from([0, 1, 3, 4]), min_size=size, max_size=size)
    truth = st.lists(st.sampled_from([0, 1, 4, IGNORE]), min_size=size, max_size=size)
    return torch.tensor(draw(ids), dtype=torch.uint8), torch.tensor(draw(truth), dtype=torch.uint8)


@pytest.mark.fault("P3", "any prediction and label, absent classes, all ignored (hypothesis)")
@given(maps(), st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_counts_as_a_loop_over_pixels_does(pair, prediction_dtype, label_dtype):
    prediction, label = pair
    found = confusion(prediction.to(prediction_dtype), label.to(label_dtype), CLASSES)
    assert found.dtype == torch.int64
    assert found.tolist() == slow_confusion(prediction.numpy(), label.numpy(), CLASSES).tolist()


@given(maps())
def test_agrees_with_sklearn(pair):
    prediction, label = pair
    kept = label != IGNORE
    if not kept.any():
        return
    truth, guess, ids = label[kept].numpy(), prediction[kept].numpy(), list(range(CLASSES))
    matrix = confusion(prediction, label, CLASSES)
    assert matrix.tolist() == metrics.confusion_matrix(truth, guess, labels=ids).tolist()
    found = scores(matrix)
    present = sorted(set(truth) | set(guess))
    assert found.miou == pytest.approx(metrics.jaccard_score(truth, guess, labels=present, average="macro"))
    assert found.pixel_accuracy == pytest.approx(metrics.accuracy_score(truth, guess))
    recalls = metrics.recall_score(truth, guess, labels=sorted(set(truth)), average="macro")
    assert found.class_accuracy == pytest.approx(recalls)
    weighted = metrics.jaccard_score(truth, guess, labels=present, average="weighted")
    assert found.frequency_weighted_iou == pytest.approx(weighted)
    assert found.absent_classes == CLASSES - len(present)


@pytest.mark.fault("P6", "a split scored in any parts (hypothesis)")
@given(maps(), st.integers(0, 200))
def test_parts_add_up_to_the_whole(pair, cut):
    prediction, label = pair
    parts = [confusion(prediction[part], label[part], CLASSES) for part in (slice(cut), slice(cut, None))]
    assert torch.equal(parts[0] + parts[1], confusion(prediction, label, CLASSES))


@given(maps(), st.permutations(range(CLASSES)))
def test_renaming_the_classes_renames_the_scores(pair, order):
    prediction, label = pair
    table = torch.full((256,), IGNORE, dtype=torch.uint8)
    table[:CLASSES] = torch.tensor(order, dtype=torch.uint8)
    before = scores(confusion(prediction, label, CLASSES))
    after = scores(confusion(table[prediction.long()], table[label.long()], CLASSES))
    np.testing.assert_equal([after.iou[new] for new in order], list(before.iou))
    np.testing.assert_allclose(after.miou, before.miou)
    assert after.absent_classes == before.absent_classes


@pytest.mark.fault("P3", "anything predicted on ignored pixels (hypothesis)")
@given(maps(), st.integers(0, 255))
def test_what_is_predicted_on_ignored_pixels_does_not_matter(pair, anything):
    prediction, label = pair
    other = torch.where(label == IGNORE, anything, prediction).to(torch.uint8)
    assert torch.equal(confusion(other, label, CLASSES), confusion(prediction, label, CLASSES))


def test_hand_computed_example():
    # label: 0 0 0 1 1 2 void; class 3 is only predicted, class 4 is absent
    label = torch.tensor([0, 0, 0, 1, 1, 2, IGNORE])
    prediction = torch.tensor([0, 0, 1, 1, 1, 3, 2])
    matrix = confusion(prediction, label, CLASSES)
    assert matrix.tolist() == [[2, 1, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 1, 0], [0] * 5, [0] * 5]
    found = scores(matrix)
    np.testing.assert_allclose(found.iou, [2 / 3, 2 / 3, 0, 0, math.nan])
    np.testing.assert_allclose(found.accuracy, [2 / 3, 1, 0, math.nan, math.nan])
    assert found.miou == pytest.approx(4 / 3 / 4)
    assert found.pixel_accuracy == pytest.approx(4 / 6)
    assert found.class_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.frequency_weighted_iou == pytest.approx((3 * 2 / 3 + 2 * 2 / 3 + 0) / 6)
    assert found.absent_classes == 1
    zero = scores(matrix, "zero")
    assert zero.miou == pytest.approx(4 / 3 / 5)
    assert zero.class_accuracy == pytest.approx((2 / 3 + 1) / 5)
    assert math.isnan(zero.iou[4])
    assert zero.absent_classes == 1
    over = scores(matrix, 182)
    assert over.miou == pytest.approx(4 / 3 / 182)
    assert over.class_accuracy == pytest.approx((2 / 3 + 1) / 182)
    assert over.iou == pytest.approx(found.iou, nan_ok=True)


def test_a_mean_over_fewer_classes_than_there_are_is_refused():
    with pytest.raises(DataError, match=r"at least 5\n  found:    averaged_over: 4"):
        scores(torch.eye(CLASSES, dtype=torch.int64), 4)


def test_score_of_a_set_is_not_the_mean_over_images():
    labels = [torch.tensor([0, 0, 0, 0]), torch.tensor([1, 0])]
    predictions = [torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0])]
    total = sum(confusion(p, t, 2) for p, t in zip(predictions, labels, strict=True))
    assert scores(total).miou == pytest.approx((5 / 6 + 0) / 2)  # mean over images: (1 + 1/4) / 2


@pytest.mark.fault("P3", "a split without a labelled pixel")
@pytest.mark.parametrize("absent", ["nan", "zero", 182])
def test_nothing_labelled_has_no_score(absent):
    label = torch.full((3, 4), IGNORE)
    found = scores(confusion(torch.zeros(3, 4, dtype=torch.int64), label, 2), absent)
    assert math.isnan(found.miou)
    assert math.isnan(found.pixel_accuracy)
    assert found.absent_classes == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_255_classes_are_counted(dtype):
    ids = torch.arange(255).to(dtype)
    assert torch.equal(confusion(ids, ids, 255), torch.eye(255, dtype=torch.int64))


def test_perfect_prediction_scores_one():
    label = torch.arange(4).repeat(5)
    found = scores(confusion(label, label, 4))
    assert (found.miou, found.pixel_accuracy, found.class_accuracy, found.frequency_weighted_iou) == (1, 1, 1, 1)


def test_counts_beyond_32_bits_stay_exact():
    matrix = torch.tensor([[2**40 + 1, 0], [2**33, 2**40]])
    assert scores(matrix).pixel_accuracy == (2**41 + 1) / (2**41 + 2**33 + 1)


@pytest.mark.fault("P3", "predictions and labels out of range, also -1")
@pytest.mark.parametrize("dtype", [torch.int16, torch.int64])
@pytest.mark.parametrize(
    ("prediction", "label", "named"),
    [(-1, 0, "-1"), (3, 0, "3"), (256, 0, "256"), (255, 1, "255"), (0, 3, "3"), (0, -1, "-1"), (0, 254, "254")],
)
def test_ids_out_of_range_are_named(dtype, prediction, label, named):
    guess, truth = torch.tensor([0, prediction], dtype=dtype), torch.tensor([1, label], dtype=dtype)
    with pytest.raises(DataError, match=rf"\[{named}\]"):
        confusion(guess, truth, 3)


@pytest.mark.fault("P3", "byte predictions and labels out of range")
def test_bytes_out_of_range_are_named():
    with pytest.raises(DataError, match=r"predictions \[3, 200\], labels \[7\]"):
        confusion(torch.tensor([3, 200, 0], dtype=torch.uint8), torch.tensor([0, 1, 7], dtype=torch.uint8), 3)


@pytest.mark.fault("P3", "logits instead of classes, other sizes, too many classes")
@pytest.mark.parametrize(
    ("prediction", "label", "classes", "words"),
    [
        (torch.zeros(2, 2), torch.zeros(2, 2).long(), 3, "argmax"),
        (torch.zeros(2, 2).bool(), torch.zeros(2, 2).long(), 3, "integer"),
        (torch.zeros(2, 2).long(), torch.zeros(2, 3).long(), 3, "different sizes"),
        (torch.zeros(2).long(), torch.zeros(2).long(), 256, "255"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(prediction, label, classes, words):
    with pytest.raises(DataError, match=words):
        confusion(prediction, label, classes)
