from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_fakes import (
    IGNORE,
    Colours,
    Strided,
    labels,
    painted_split,
    recipe,
    slow_boundary,
    slow_confusion,
    slow_ece,
    write_split,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from segkd.errors import DataError
from segkd.evaluation.boundary import thickness
from segkd.evaluation.confusion import confusion
from segkd.evaluation.evaluate import confidence_of, decide, evaluate_network, evaluating, predict, sample_indices
from segkd.evaluation.inputs import input_size, scored_size
from segkd.evaluation.quick import miou

CLASSES = 4
SIZES = [(23, 31), (23, 31), (37, 18), (16, 16)]


@pytest.fixture
def truth():
    return labels(7, SIZES, CLASSES)


def noisy_split(folder, truth):
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 255, (*label.shape, 3), dtype=np.uint8) for label in truth]
    return write_split(folder, "val", images, truth), images


def test_equals_a_slow_evaluation_image_by_image(tmp_path, truth):
    split, images = noisy_split(tmp_path, truth)
    network = Strided(CLASSES)
    found = evaluate_network(network, split, recipe(), CLASSES, "cpu")
    network.eval()
    matrix, rims, sure, right = np.zeros((CLASSES, CLASSES), int), np.zeros((2, CLASSES), int), [], []
    for index, (image, label) in enumerate(zip(images, truth, strict=True)):
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            logits = F.interpolate(network(x).logits, label.shape, mode="bilinear", align_corners=True)[0]
        probability, guess = logits.softmax(0).numpy(), logits.numpy().argmax(0)
        single = slow_confusion(guess, label, CLASSES)
        assert found.per_image.intersection[index].tolist() == single.diagonal().tolist()
        assert found.per_image.label[index].tolist() == single.sum(1).tolist()
        assert found.per_image.prediction[index].tolist() == single.sum(0).tolist()
        matrix += single
        rims += slow_boundary(guess, label, CLASSES, thickness(*label.shape))
        kept = label != IGNORE
        sure.append(probability.max(0)[kept])
        right.append((guess == label)[kept])
    assert found.confusion.tolist() == matrix.tolist()
    assert found.boundary.tolist() == rims.tolist()
    assert found.summary()["ece"] == pytest.approx(slow_ece(np.concatenate(sure), np.concatenate(right)), abs=2e-5)
    assert found.per_image.ids == tuple(split.ids)


def test_a_network_that_knows_scores_one(tmp_path, truth):
    split = painted_split(tmp_path, truth)
    found = evaluate_network(Colours(CLASSES), split, recipe(), CLASSES, "cpu").summary()
    assert [found[name] for name in ("miou", "pixel_accuracy", "class_accuracy", "boundary_iou")] == [1, 1, 1, 1]
    assert found["absent_classes"] == 0


def test_images_of_one_size_share_batches_and_nothing_else_changes(tmp_path, truth):
    split, _ = noisy_split(tmp_path, truth)
    network = Colours(CLASSES)
    single = evaluate_network(network, split, recipe(), CLASSES, "cpu")
    network.seen.clear()
    batched = evaluate_network(network, split, recipe({"batch": 3}), CLASSES, "cpu")
    assert [shape[0] for shape in network.seen] == [2, 1, 1, 2, 1]
    assert torch.equal(single.confusion, batched.confusion)
    assert torch.equal(single.boundary, batched.boundary)
    assert torch.equal(single.calibration, batched.calibration)
    assert (single.per_image.intersection == batched.per_image.intersection).all()


def test_input_scale_shrinks_what_the_network_sees_and_labels_keep_their_size(tmp_path, truth):
    split, network = painted_split(tmp_path, truth), Colours(CLASSES)
    found = evaluate_network(network, split, recipe(input_scale=0.5), CLASSES, "cpu")
    assert [shape[2:] for shape in network.seen[:4]] == [(12, 16), (12, 16), (18, 9), (8, 8)]
    assert int(found.confusion.sum()) == sum(int((label != IGNORE).sum()) for label in truth)


def test_short_side_scores_resized_labels(tmp_path):
    truth = [np.repeat(np.repeat(label, 3, 0), 3, 1) for label in labels(3, [(8, 12)], CLASSES)]
    split, network = painted_split(tmp_path, truth), Colours(CLASSES)
    found = evaluate_network(network, split, recipe({"short_side": 8}), CLASSES, "cpu", samples=3)
    assert {shape[2:] for shape in network.seen} == {(8, 12)}
    expected = [int((label[1::3, 1::3] != IGNORE).sum()) for label in truth]
    assert found.per_image.label.sum(1).tolist() == expected
    assert {sample.shape for sample in found.samples.values()} == {(24, 36)}


def test_sizes_follow_the_recipe():
    both = recipe({"short_side": 100}, input_scale=0.5)
    assert scored_size((200, 301), both) == (100, 150)
    assert input_size((200, 301), both) == (50, 75)
    assert input_size((1, 1), recipe(input_scale=0.1)) == (1, 1)


@pytest.mark.fault("P1", "a look at the validation split during training")
def test_network_keeps_modes_gradients_statistics_and_generator(tmp_path, truth):
    split, _ = noisy_split(tmp_path, truth)
    network = Strided(CLASSES).train()
    network.body[1].eval()  # a frozen batch norm among training modules
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    miou(network, split, recipe(), CLASSES, "cpu")
    evaluate_network(network, split, recipe(), CLASSES, "cpu")
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.fault("P2", "a look at the validation split that fails")
def test_network_keeps_its_modes_when_scoring_fails():
    network = Strided(CLASSES).train()
    with pytest.raises(RuntimeError, match="stop"), evaluating(network):
        assert not network.training
        assert not torch.is_grad_enabled()
        raise RuntimeError("stop")
    assert network.training
    assert torch.is_grad_enabled()


def test_dropout_and_batch_norm_are_in_eval_mode(tmp_path, truth):
    split, _ = noisy_split(tmp_path, truth)
    network = Strided(CLASSES).train()
    assert miou(network, split, recipe(), CLASSES, "cpu") == miou(network, split, recipe(), CLASSES, "cpu")


@pytest.mark.parametrize(
    ("means", "absent"),
    [({"absent_classes": "nan"}, "nan"), ({"absent_classes": "zero"}, "zero"), ({"averaged_over": 182}, 182)],
)
def test_quick_look_equals_the_evaluation(tmp_path, truth, means, absent):
    split, _ = noisy_split(tmp_path, truth)
    rule = recipe({"batch": 2, **means}, input_scale=0.7)
    found = evaluate_network(Strided(CLASSES + 3), split, rule, CLASSES + 3, "cpu")
    assert miou(Strided(CLASSES + 3), split, rule, CLASSES + 3, "cpu") == found.scores(absent).miou


def test_single_prediction_equals_the_evaluations_sample(tmp_path, truth):
    split, _ = noisy_split(tmp_path, truth)
    found = evaluate_network(Strided(CLASSES), split, recipe(), CLASSES, "cpu", samples=2)
    assert list(found.samples) == ["val-0", "val-6"]
    for index in (0, 6):
        alone = predict(Strided(CLASSES), split, index, recipe(), "cpu")
        assert alone.dtype == np.uint8
        assert (alone == found.samples[split.ids[index]]).all()
        intersection = [int(((alone == c) & (truth[index] == c)).sum()) for c in range(CLASSES)]
        assert found.per_image.intersection[index].tolist() == intersection


def test_sample_indices_are_even_and_never_more_than_there_are():
    assert sample_indices(233, 6) == [0, 46, 93, 139, 186, 232]
    assert sample_indices(4, 6) == [0, 1, 2, 3]
    assert sample_indices(9, 0) == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_decides_for_the_first_of_the_greatest(seed, classes):
    logits = torch.randint(0, 3, (2, classes, 5, 6), generator=torch.Generator().manual_seed(seed)).float()
    prediction, best = decide(logits)
    assert prediction.dtype == torch.uint8
    assert (prediction.numpy() == logits.numpy().argmax(1)).all()
    assert torch.equal(best, logits.amax(1))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 5.0, 200.0]))
def test_confidence_is_the_greatest_softmax_probability(seed, scale):
    logits = scale * torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(confidence_of(logits, logits.amax(1)), logits.softmax(1).amax(1))


@pytest.mark.fault("P3", "logits that are not a number")
def test_a_logit_that_is_nan_is_no_prediction():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0, 1] = torch.nan
    prediction, _ = decide(logits)
    with pytest.raises(DataError, match="NaN"):
        confusion(prediction, torch.zeros(1, 2, 2, dtype=torch.uint8), 3)


@pytest.mark.fault("P3", "a split with nothing to score")
@pytest.mark.parametrize("score", [miou, evaluate_network])
def test_nothing_to_score_is_an_error(tmp_path, score):
    split = painted_split(tmp_path, [np.full((8, 8), IGNORE, np.uint8)])
    with pytest.raises(DataError, match="nothing to score"):
        score(Colours(CLASSES), split, recipe(), CLASSES, "cpu")
