"""Resizing a window equals resizing the whole and cropping; labels keep their values."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_data import ids, picture
from PIL import Image

from segkd.data.resize import resize_image, resize_label, scaled_size


@st.composite
def windows(draw):
    """(source size, target size, window)."""
    source = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    target = scaled_size(source, draw(st.floats(0.2, 3.0)))
    height, width = draw(st.integers(1, target[0])), draw(st.integers(1, target[1]))
    top, left = draw(st.integers(0, target[0] - height)), draw(st.integers(0, target[1] - width))
    return source, target, (top, left, height, width)


def crop(array, window):
    top, left, height, width = window
    return array[top : top + height, left : left + width]


@given(windows(), st.integers(0, 99))
def test_label_window_is_exactly_the_crop_of_the_whole(case, seed):
    source, target, window = case
    label = ids(seed, *source) if source[1] > 1 else np.full(source, 2, np.uint8)
    whole = resize_label(label, target)
    assert np.array_equal(resize_label(label, target, window), crop(whole, window))
    assert set(np.unique(whole)) <= set(np.unique(label))


@given(windows(), st.integers(0, 99))
def test_label_is_the_pixel_under_each_centre(case, seed):
    source, target, window = case
    label = np.random.default_rng(seed).integers(0, 256, source, dtype=np.uint8)
    rows, columns = ([(2 * x + 1) * n // (2 * m) for x in range(m)] for n, m in zip(source, target, strict=True))
    assert np.array_equal(resize_label(label, target, window), crop(label[np.ix_(rows, columns)], window))


@given(windows(), st.integers(0, 99))
def test_image_window_is_the_crop_of_the_whole_up_to_two_levels(case, seed):
    source, target, window = case
    image = picture(seed, *source)
    whole = resize_image(image, target)
    assert np.array_equal(whole, np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR)))
    difference = np.abs(resize_image(image, target, window).astype(int) - crop(whole, window))
    assert difference.max() <= 2


def test_almost_every_pixel_is_exact_even_of_noise():
    image = picture(1, 360, 480)
    window = (111, 222, 200, 150)
    whole = resize_image(image, (401, 535))
    assert (resize_image(image, (401, 535), window) != crop(whole, window)).mean() < 0.01


def test_only_the_window_and_its_surroundings_are_read():
    image = picture(1, 100, 100)
    changed = image.copy()
    changed[40:], changed[:, 40:] = 0, 0
    window = (0, 0, 30, 30)
    assert np.array_equal(resize_image(image, (99, 101), window), resize_image(changed, (99, 101), window))


def test_image_and_label_share_one_geometry():
    label = np.zeros((30, 40), np.uint8)
    label[10:20, 10:25] = 1
    image = np.repeat(label[:, :, None] * np.uint8(200), 3, axis=2)
    for size in [(60, 80), (21, 28), (37, 50)]:
        seen = resize_image(image, size)[:, :, 0] >= 100
        assert (seen != resize_label(label, size).astype(bool)).mean() < 0.03


def test_same_size_keeps_every_pixel():
    image = picture(2)
    assert np.array_equal(resize_image(image, image.shape[:2]), image)


def test_a_size_is_never_zero():
    assert scaled_size((3, 100), 0.01) == (1, 1)
