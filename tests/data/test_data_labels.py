"""Label maps, and the advice where ids do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkd.data.labels import CITYSCAPES, LabelMap, advice


@pytest.mark.fault("P3", "any map of label ids (hypothesis)")
@given(st.dictionaries(st.integers(0, 255), st.integers(0, 255)), st.sampled_from([None, 0, 255]))
def test_a_map_does_what_it_says(ids, others):
    labels = LabelMap.of(ids, others=others)
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rest = 255 if others is None else others
    assert labels.apply(every).ravel().tolist() == [ids.get(one, rest) for one in range(256)]
    assert labels.ids() == (sorted(ids) if others is None else list(range(256)))


def test_ids_may_be_larger_than_a_byte():
    labels = LabelMap.of({2: 1, 458: 59}, others=0, size=460)
    assert labels.apply(np.array([[0, 2, 458, 459]], np.uint16)).tolist() == [[0, 1, 59, 0]]
    assert labels.ids() == list(range(460))


@pytest.mark.fault("P3", "label ids that do not fit: raw ids, 255, void, black and white")
@pytest.mark.parametrize(
    ("seen", "classes", "helps"),
    [
        ({0, 7, 8, 11, 33}, 19, ("labelIds", "7: 0, 8: 1, 11: 2", "33: 18", "unlisted: ignore")),
        ({0, 1, 2, 255}, 3, ("ignore: [..., 255]",)),
        ({0, 1, 2, 3}, 3, ("void: `ignore: [3]`", "first_id: 1", "ignore: [0]")),
        ({0, 1, 3, 255}, 3, ("ignore: [3, 255]", "ignore: [0, 255]")),
        ({0, 255}, 2, ("map: {0: 0, 255: 1}",)),
    ],
)
def test_advice_names_the_lines_that_help(seen, classes, helps):
    text = advice(seen, LabelMap.of({one: one for one in range(classes)}), classes)
    assert all(one in text for one in helps)


def test_no_advice_is_better_than_a_wrong_one():
    assert advice({0, 1, 77, 130}, LabelMap.of({0: 0, 1: 1}), 2) == ""


def test_cityscapes_ids_are_the_19_evaluated_ones():
    assert len(set(CITYSCAPES)) == 19 and list(CITYSCAPES) == sorted(CITYSCAPES)
    assert not set(CITYSCAPES) & {9, 10, 14, 15, 16, 18, 29, 30}
