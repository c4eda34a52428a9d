from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from segkd.errors import DataError
from segkd.evaluation.confusion import scores
from segkd.evaluation.per_image import PerImage
from segkd.evaluation.stats import Sums, holm, miou_from_sums, paired_gain_interval, t_interval

CLASSES = 5


def run(images: int, quality: float, seed: int) -> Sums:
    """Per-image sums of a run that hits a share of about `quality` of each class; labels equal for every seed."""
    label = np.random.default_rng(0).integers(0, 400, (images, CLASSES))
    rng = np.random.default_rng(seed)
    hit = rng.binomial(label, np.clip(rng.normal(quality, 0.1, label.shape), 0, 1))
    missed = (label - hit).sum(1)
    return hit, label, hit + rng.multinomial(missed, np.full(CLASSES, 1 / CLASSES))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from(["nan", "zero", 6, 182]))
def test_miou_from_sums_equals_that_of_the_confusion_matrix(seed, classes, absent):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 30, (classes, classes)) * (rng.random((classes, classes)) < 0.4)
    found = miou_from_sums(matrix.diagonal(), matrix.sum(1), matrix.sum(0), absent)
    np.testing.assert_allclose(found, scores(torch.from_numpy(matrix), absent).miou)


def test_miou_from_sums_takes_any_number_of_resamples():
    parts = [part.reshape(2, 10, CLASSES) for part in run(20, 0.6, 1)]
    found = miou_from_sums(*parts)
    assert found.shape == (2, 10)
    assert found[1, 3] == miou_from_sums(*(part[1, 3] for part in parts))


def test_gain_interval_equals_a_loop_over_resamples():
    student, baseline = [run(12, 0.7, s) for s in (1, 2, 3)], [run(12, 0.6, s) for s in (4, 5, 6)]
    found = paired_gain_interval(student, baseline, resamples=60, seed=9)
    rng = np.random.default_rng(9)
    images, seeds = rng.multinomial(12, [1 / 12] * 12, size=60), rng.multinomial(3, [1 / 3] * 3, size=60)
    gains = []
    for draw, weights in zip(images, seeds, strict=True):
        chosen = np.repeat(np.arange(12), draw)
        pairs = [
            pair
            for pair, weight in zip(zip(student, baseline, strict=True), weights, strict=True)
            for _ in range(weight)
        ]
        scored = [[miou_from_sums(*(part[chosen].sum(0) for part in one)) for one in pair] for pair in pairs]
        gains.append(np.mean([ours - theirs for ours, theirs in scored]))
    whole = [
        [miou_from_sums(*(part.sum(0) for part in one)) for one in pair] for pair in zip(student, baseline, strict=True)
    ]
    expected = (np.mean([ours - theirs for ours, theirs in whole]), *np.quantile(gains, [0.025, 0.975]))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_no_gain_over_oneself():
    runs = [run(20, 0.6, seed) for seed in range(3)]
    assert paired_gain_interval(runs, runs, resamples=100) == (0, 0, 0)


def test_gain_turns_its_sign_with_the_pair():
    student, baseline = [run(20, 0.7, s) for s in (1, 2)], [run(20, 0.6, s) for s in (3, 4)]
    gain, low, high = paired_gain_interval(student, baseline, resamples=200)
    np.testing.assert_allclose(paired_gain_interval(baseline, student, resamples=200), (-gain, -high, -low), atol=1e-12)
    assert 0 < low < gain < high


def test_pairing_takes_out_what_seeds_share():
    """Seeds differ by far more than student and baseline do; the interval must not see that."""
    easy, hard = run(40, 0.8, 1), run(40, 0.4, 2)
    lift = [(hit + 1, label + 1, guess + 1) for hit, label, guess in (easy, hard)]
    gain, low, high = paired_gain_interval(lift, [easy, hard], resamples=300)
    spread = abs(miou_from_sums(*(p.sum(0) for p in easy)) - miou_from_sums(*(p.sum(0) for p in hard)))
    assert 0 < low < gain < high
    assert high - low < spread / 20


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, images, inside = np.random.default_rng(5), 60, 0
    truth = 0.0
    for trial in range(60):
        student, baseline = run(images, 0.6, 1000 + trial), run(images, 0.6, 5000 + trial)
        _, low, high = paired_gain_interval([student], [baseline], resamples=300, seed=int(rng.integers(1000)))
        inside += low <= truth <= high
    assert 51 <= inside <= 60


def test_same_seed_same_interval():
    student, baseline = [run(20, 0.7, 1)], [run(20, 0.6, 2)]
    first, again, other = (paired_gain_interval(student, baseline, 100, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_half_a_thousand_images_take_less_than_a_second():
    student, baseline = [run(500, 0.7, s) for s in range(3)], [run(500, 0.6, s) for s in range(3, 6)]
    started = time.process_time()
    paired_gain_interval(student, baseline)
    assert time.process_time() - started < 1.0


@pytest.mark.fault("P3", "runs that were scored on other images")
@pytest.mark.parametrize(
    ("student", "baseline"),
    [([], []), ([run(5, 0.5, 0)], []), ([run(5, 0.5, 0)], [run(6, 0.5, 0)]), ([run(0, 0.5, 0)], [run(0, 0.5, 0)])],
)
def test_runs_that_are_no_pairs_are_refused(student, baseline):
    with pytest.raises(DataError, match="pair by pair"):
        paired_gain_interval(student, baseline)


def test_t_interval_equals_the_table():
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    values = [0.3, 0.35, 0.31, 0.4]
    expected = scipy_stats.t.interval(0.9, 3, np.mean(values), scipy_stats.sem(values))
    np.testing.assert_allclose(t_interval(values, 0.9)[1:], expected)


def test_one_seed_has_a_mean_and_no_interval():
    np.testing.assert_equal(t_interval([0.5]), (0.5, math.nan, math.nan))
    np.testing.assert_equal(t_interval([]), (math.nan, math.nan, math.nan))


def test_holm_equals_the_hand_computed_example():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_keeps_order_and_only_enlarges(pvalues, random):
    adjusted = holm(pvalues)
    assert (adjusted >= np.array(pvalues)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(pvalues, kind="stable")]) >= 0).all()
    order = list(range(len(pvalues)))
    random.shuffle(order)
    np.testing.assert_allclose(holm([pvalues[i] for i in order]), adjusted[order])


def test_sums_survive_the_file(tmp_path):
    sums = PerImage(("a", "città/b"), *(part.astype(np.int64) for part in run(2, 0.5, 0)))
    sums.save(tmp_path / "per_image.npz")
    again = PerImage.load(tmp_path / "per_image.npz")
    assert again.ids == sums.ids
    for before, after in zip(sums.sums, again.sums, strict=True):
        assert after.dtype == np.int64
        np.testing.assert_array_equal(before, after)


@pytest.mark.fault("P3", "a torn file of sums per image")
@pytest.mark.parametrize("cut", [0, 10, 400, -1])
def test_torn_file_of_sums_is_an_error(tmp_path, cut):
    path = tmp_path / "per_image.npz"
    PerImage(("a",), *run(1, 0.5, 0)).save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="evaluate the run again"):
        PerImage.load(path)
    path.unlink()
    with pytest.raises(DataError, match="Per-image sums"):
        PerImage.load(path)
