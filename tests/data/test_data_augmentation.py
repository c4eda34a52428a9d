"""Augmentation: what a crop shows, where padding lies, and that draws depend on the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_data import ids, picture

from segkd.config.recipe import Augmentation, Blur, Normalise, Scale
from segkd.data.augmentation import augment, normalise, random_size

IMAGE, LABEL = picture(0, 20, 30), ids(0, 20, 30)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(crop: tuple[int, int], **options) -> Augmentation:
    return Augmentation(crop=crop, **{"flip": 0.0, **options})


@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.floats(0.3, 1.0),
    st.floats(1.0, 2.0),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_crop_has_its_size_its_box_and_only_known_labels(seed, crop, low, high, flip):
    config = Augmentation(crop=crop, scale=Scale(low=low, high=high), flip=flip, blur=Blur(probability=0.5))
    sample = augment(IMAGE, LABEL, config, 1.0, rng(seed))
    top, left, bottom, right = sample.box
    assert sample.image.shape == (*crop, 3) and sample.label.shape == crop
    assert 0 <= top < bottom <= crop[0] and 0 <= left < right <= crop[1]
    assert set(np.unique(sample.label)) <= set(np.unique(LABEL)) | {255}
    outside = np.ones(crop, bool)
    outside[top:bottom, left:right] = False
    assert (sample.label[outside] == 255).all() and (sample.image[outside] == 0).all()


def test_a_crop_larger_than_the_image_is_padded_at_bottom_and_right():
    sample = augment(IMAGE, LABEL, plain((25, 40)), 1.0, rng())
    assert sample.box == (0, 0, 20, 30)
    assert np.array_equal(sample.image[:20, :30], IMAGE)
    assert np.array_equal(sample.label[:20, :30], LABEL)


def test_a_flip_mirrors_picture_padding_and_label_together():
    straight = augment(IMAGE, LABEL, plain((25, 40)), 1.0, rng())
    flipped = augment(IMAGE, LABEL, plain((25, 40), flip=1.0), 1.0, rng())
    assert np.array_equal(flipped.image, straight.image[:, ::-1])
    assert np.array_equal(flipped.label, straight.label[:, ::-1])
    assert flipped.box == (0, 10, 20, 40)


def test_pad_label_and_the_released_codes_slip():
    assert (augment(IMAGE, LABEL, plain((25, 40), pad_label=0), 1.0, rng()).label[20:] == 0).all()


def test_input_scale_multiplies_the_scale():
    half = augment(IMAGE, LABEL, plain((20, 30)), 0.5, rng())
    assert half.box == (0, 0, 10, 15)
    assert random_size((20, 30), Scale(low=2, high=2), 0.25, 0.0) == (10, 15)


def test_scale_grid_holds_exactly_the_papers_factors():
    scale = Scale(low=0.5, high=2.0, step=0.1)  # CIRKD: 0.5 + {0, ..., 15} / 10
    sizes = {random_size((100, 100), scale, 1.0, draw)[0] for draw in np.linspace(0, 0.9999, 2000)}
    assert sizes == set(range(50, 201, 10))


def test_short_side_reaches_both_ends_in_whole_pixels():
    scale = Scale(kind="short_side", low=256, high=1026)  # AICSD and AttnFD
    sizes = [random_size((360, 480), scale, 1.0, draw) for draw in (0.0, 0.5, 0.999999)]
    assert sizes[0] == (256, 341) and sizes[-1] == (1026, 1368)
    assert random_size((480, 360), scale, 1.0, 0.0) == (341, 256)


def test_blur_smooths_the_picture_and_never_the_label():
    sharp = augment(IMAGE, LABEL, plain((20, 30)), 1.0, rng())
    soft = augment(IMAGE, LABEL, plain((20, 30), blur=Blur(probability=1.0, radius=(1.0, 1.0))), 1.0, rng())
    assert soft.image.std() < sharp.image.std()
    assert np.array_equal(soft.label, sharp.label)


def test_one_setting_does_not_shift_the_draws_of_another():
    def label(**options) -> np.ndarray:
        return augment(IMAGE, LABEL, plain((8, 8), scale=Scale(low=0.5, high=2), **options), 1.0, rng(7)).label

    assert np.array_equal(label(), label(blur=Blur(probability=1.0)))
    assert np.array_equal(label(), label(flip=1.0)[:, ::-1])


def test_the_same_generator_gives_the_same_crop():
    config = Augmentation(crop=(9, 9), scale=Scale(low=0.5, high=2), blur=Blur(probability=0.5))
    first, again, other = (augment(IMAGE, LABEL, config, 1.0, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


IMAGES = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)


def test_normalise_is_the_formula():
    images = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2) * 20
    config = Augmentation(crop=(2, 2))
    expected = (images.double() / 255 - torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)) / torch.tensor(
        (0.229, 0.224, 0.225)
    ).view(1, 3, 1, 1)
    found = normalise(images, None, config)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())


def test_bgr_order_swaps_channels_before_the_mean():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    rule = Normalise(order="bgr", divide=1, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    found = normalise(images, None, Augmentation(crop=(1, 1), normalise=rule))
    assert found.flatten().tolist() == [29, 18, 7]


@pytest.mark.parametrize(("pad", "value"), [("mean", 0.0), ("black", (0 - 0.485) / 0.229)])
def test_padding_is_the_mean_or_black(pad, value):
    images, boxes = IMAGES.clone(), torch.tensor([[0, 1, 1, 2]])
    images[:, :, 1], images[:, :, :, 0] = 0, 0
    found = normalise(images, boxes, Augmentation(crop=(2, 2), pad_image=pad))
    assert found[0, 0, 0, 1] == pytest.approx((1 - 0.485) / 0.229)
    for row, column in [(0, 0), (1, 0), (1, 1)]:
        assert found[0, 0, row, column] == pytest.approx(value)


@given(st.integers(0, 99), st.sampled_from(["rgb", "bgr"]), st.sampled_from(["mean", "black"]), st.booleans())
def test_normalise_gives_the_plain_operations_bits_in_either_layout(seed, order, pad, last):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 5, 7), generator=draw).to(torch.uint8)
    boxes = torch.tensor([[0, 0, 5, 7], [1, 2, 4, 6]])
    rule = Normalise(order=order)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (rule.mean, rule.std))
    expected = (images.flip(1) if order == "bgr" else images).to(torch.float32).div(255.0).sub(mean).div(std)
    if pad == "mean":
        kept = torch.zeros(5, 7, dtype=torch.bool)
        kept[1:4, 2:6] = True
        expected[1] = torch.where(kept, expected[1], 0.0)
    given_images = images.contiguous(memory_format=torch.channels_last) if last else images
    found = normalise(given_images, boxes, Augmentation(crop=(5, 7), normalise=rule, pad_image=pad))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_normalise_leaves_its_input_alone():
    before = IMAGES.clone()
    normalise(IMAGES, torch.tensor([[0, 0, 1, 1]]), Augmentation(crop=(2, 2)))
    assert torch.equal(IMAGES, before)
