"""Maps of ids come out of MATLAB files; objects, other files and bombs do not."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_sets import mat, of_ids, sbd_mat
from scipy.io.matlab import MatlabObject

from segkd.data import mat as reader
from segkd.data.decode import FaultError
from segkd.data.mat import decode_mat

SBD = ("GTcls", "Segmentation")
IDS = of_ids(0, 3, 20)


def test_sbd_mask_is_found_within_its_structure():
    found = decode_mat(sbd_mat(IDS), SBD)
    assert found.dtype == np.uint16
    assert np.array_equal(found, IDS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_any_whole_numbers_do(dtype):
    assert np.array_equal(decode_mat(mat({"LabelMap": IDS.astype(dtype)}), ("LabelMap",)), IDS)


def record(**fields: object) -> np.ndarray:
    """A 1 x 1 structure."""
    array = np.zeros((1, 1), [(name, object) for name in fields])
    for name, value in fields.items():
        array[name][0, 0] = value
    return array


@pytest.mark.fault("P3", "MATLAB files that hold no label")
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"GTinst": {"Segmentation": IDS}}, "has no GTcls$"),
        ({"GTcls": {"Boundaries": IDS}}, "has no GTcls.Segmentation"),
        ({"GTcls": IDS}, "has no GTcls.Segmentation"),
        ({"GTcls": np.repeat(record(Segmentation=IDS), 2, 0)}, "has no GTcls.Segmentation"),
        ({"GTcls": MatlabObject(record(Segmentation=IDS), "thing")}, "holds an object in GTcls"),
        ({"GTcls": {"Segmentation": MatlabObject(record(a=IDS), "thing")}}, "holds an object in GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.array([[IDS]], object)}}, "no map of numbers: object"),
        ({"GTcls": {"Segmentation": "text"}}, "no map of numbers: <U4"),
        ({"GTcls": {"Segmentation": np.zeros((2, 2, 2), np.uint8)}}, r"no map of numbers: uint8 of shape \(2, 2, 2\)"),
        ({"GTcls": {"Segmentation": np.zeros((0, 0))}}, "no map of numbers"),
        ({"GTcls": {"Segmentation": IDS + 0.5}}, "not whole"),
        ({"GTcls": {"Segmentation": np.full((2, 2), np.nan)}}, "not whole"),
        ({"GTcls": {"Segmentation": IDS.astype(np.int16) - 1}}, "ids -1 to 19"),
        ({"GTcls": {"Segmentation": IDS.astype(np.int32) + 70000}}, "ids 70000 to 70020"),
    ],
)
def test_anything_else_is_a_fault(content, fault):
    with pytest.raises(FaultError, match=fault):
        decode_mat(mat(content), SBD)


@pytest.mark.fault("P3", "other files named like MATLAB's")
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\x89PNG", "is not a MATLAB 5 file"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500), "is a MATLAB 7.3 file"),
        (sbd_mat(IDS)[:200], "is truncated or damaged"),
        (sbd_mat(IDS)[:128], "has no GTcls"),
    ],
)
def test_other_files_are_told_apart(content, fault):
    with pytest.raises(FaultError, match=fault):
        decode_mat(content, SBD)


@pytest.mark.fault("P4", "a MATLAB file that unpacks to gigabytes")
def test_what_unpacks_to_more_than_a_label_is_refused(monkeypatch):
    content = mat({"GTcls": {"Segmentation": IDS}, "more": np.zeros((400, 500), np.uint8)})
    assert len(content) < 2000
    assert np.array_equal(decode_mat(content, SBD), IDS)
    monkeypatch.setattr(reader, "LARGEST", 150_000)
    with pytest.raises(FaultError, match="unpacks to more than 150000 bytes"):
        decode_mat(content, SBD)
