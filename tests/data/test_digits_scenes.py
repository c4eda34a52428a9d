"""`digits`: a pure function of its configuration, from disjoint handwriting, with a ring of ignored pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from segkd.config.data import DigitsData
from segkd.data.digits import CLASSES, IGNORE, PALETTE, SPLITS, scenes, sources
from segkd.errors import DataError

Label = NDArray[np.uint8]


def config(**changes: object) -> DigitsData:
    small = {"kind": "digits", "size": 40, "digits": (1, 3), "digit_size": (12, 16)}
    return DigitsData.model_validate(small | {"scenes": {"train": 30, "val": 5, "test": 10}} | changes)


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[Label, Label]]:
    return dict(scenes(config()))


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every pixel of a mask and its eight neighbours."""
    wide = np.pad(mask, 1)
    height, width = mask.shape
    return np.logical_or.reduce([wide[r : r + height, c : c + width] for r in range(3) for c in range(3)])


def test_shapes_types_and_counts(drawn: dict[str, tuple[Label, Label]]) -> None:
    for split, count in config().scenes.items():
        images, labels = drawn[split]
        assert (images.shape, images.dtype) == ((count, 40, 40, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((count, 40, 40), np.uint8)
    assert len(CLASSES) == len(PALETTE) == 11


def test_same_values_same_bytes_other_seed_other_bytes(drawn: dict[str, tuple[Label, Label]]) -> None:
    again, other = scenes(config()), scenes(config(seed=1))
    for split in SPLITS:
        assert all(np.array_equal(a, b) for a, b in zip(drawn[split], again[split], strict=True))
        assert not np.array_equal(drawn[split][0], other[split][0])


def test_first_scenes_do_not_depend_on_how_many_follow(drawn: dict[str, tuple[Label, Label]]) -> None:
    more = scenes(config(scenes={"train": 40, "val": 5, "test": 10}))
    assert np.array_equal(more["train"][0][:30], drawn["train"][0])


def test_handwriting_of_the_splits_is_disjoint_and_complete() -> None:
    parts = [set(part.tolist()) for part in sources(0).values()]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 1797
    assert [set(part.tolist()) for part in sources(1).values()] != parts


def test_ring_of_one_ignored_pixel_around_every_digit_and_nowhere_else(drawn: dict[str, tuple[Label, Label]]) -> None:
    for label in drawn["train"][1]:
        digit, ring = (label > 0) & (label != IGNORE), label == IGNORE
        assert np.array_equal(ring, grown(digit) & ~digit)


def test_every_scene_has_the_asked_number_of_digits(drawn: dict[str, tuple[Label, Label]]) -> None:
    for label in drawn["train"][1]:
        present = set(np.unique(label).tolist()) - {0, IGNORE}
        assert 1 <= len(present) <= 3
        assert present <= set(range(1, 11))


def test_classes_are_balanced() -> None:
    labels = scenes(config(scenes={"train": 200, "val": 1, "test": 1}))["train"][1]
    scenes_with = np.array([sum((label == one).any() for label in labels) for one in range(1, 11)])
    assert scenes_with.min() > 0.7 * scenes_with.max()


def test_colour_tells_nothing_about_the_class() -> None:
    images, labels = scenes(config(scenes={"train": 300, "val": 1, "test": 1}, digits=(1, 1)))["train"]
    means = [
        np.mean(
            [image[label == one].mean(0) for image, label in zip(images, labels, strict=True) if (label == one).any()],
            0,
        )
        for one in range(1, 11)
    ]
    spread_between = np.std(means, axis=0).max()
    assert spread_between < 15  # of 255; a single digit's colour spreads over more than 100


def test_digits_that_do_not_fit_are_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match="fewer or smaller digits"):
        scenes(config(size=20, digits=(9, 9), digit_size=(18, 20)))


@pytest.mark.parametrize("wrong", [{"digits": (3, 1)}, {"digits": (0, 1)}, {"digit_size": (20, 99)}])
def test_impossible_ranges_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        config(**wrong)
