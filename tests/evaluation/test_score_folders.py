from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_fakes import IGNORE, labels, slow_confusion
from PIL import Image
from scipy.io import savemat

from segkd.config.data import (
    ADE20KData,
    CamVidData,
    CityscapesData,
    CocoStuffData,
    ContextData,
    DigitsData,
    FolderData,
    VocAugData,
    VocData,
)
from segkd.data.labels import LabelMap
from segkd.errors import DataError
from segkd.evaluation.score import label_map_of, read_names, score_dataset, score_folders

CLASSES = ("sky", "road", "car")


@pytest.fixture
def folders(tmp_path):
    """Three labels and predictions; one pair in a subfolder, one prediction with a palette."""
    truth = labels(3, [(20, 24), (16, 30)], len(CLASSES))
    guess = [np.where(label == IGNORE, 0, np.roll(label, 1, 1) % len(CLASSES)).astype(np.uint8) for label in truth]
    for kind, maps in (("labels", truth), ("predictions", guess)):
        (tmp_path / kind / "city").mkdir(parents=True)
        for name, ids in zip(("a", "b", "city/c"), maps, strict=True):
            Image.fromarray(ids).save(tmp_path / kind / f"{name}.png")
    colourful = Image.fromarray(guess[0])
    colourful.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colourful.save(tmp_path / "predictions" / "a.png")
    return tmp_path / "labels", tmp_path / "predictions", truth, guess


def write(path, ids):
    Image.fromarray(np.asarray(ids, np.uint8)).save(path)


def test_equals_the_confusion_over_all_files(folders):
    truth_folder, guess_folder, truth, guess = folders
    found = score_folders(truth_folder, guess_folder, CLASSES)
    expected = sum(slow_confusion(g, t, 3) for g, t in zip(guess, truth, strict=True))
    assert found.evaluation.confusion.tolist() == expected.tolist()
    assert found.evaluation.per_image.ids == ("a", "b", "city/c")
    record = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert record["confusion"] == expected.tolist()
    assert record["images"] == 3
    assert record["scores"]["miou"] == found.scores.miou
    assert record["scores"]["ece"] is None
    assert [entry["name"] for entry in record["per_class"]] == list(CLASSES)


def test_mapping_turns_raw_ids_into_classes(folders):
    truth_folder, guess_folder, truth, _ = folders
    before = score_folders(truth_folder, guess_folder, CLASSES).as_json()
    for name, ids in zip(("a", "b", "city/c"), truth, strict=True):
        write(truth_folder / f"{name}.png", np.where(ids == IGNORE, 11, ids))
    label_map = LabelMap.of({0: 0, 1: 1, 2: 2, 11: IGNORE})
    assert score_folders(truth_folder, guess_folder, CLASSES, label_map=label_map).as_json() == before
    with pytest.raises(DataError, match=r"label has ids \[11\]; known are \[0, 1, 2\] and 255"):
        score_folders(truth_folder, guess_folder, CLASSES)


def test_label_files_are_read_as_the_data_set_publishes_them(folders, tmp_path):
    truth_folder, guess_folder, truth, _ = folders
    before = score_folders(truth_folder, guess_folder, CLASSES).as_json()
    description = {"classes": list(CLASSES), "first_id": 5, "ignore": [0]}
    (tmp_path / "dataset.yaml").write_text(json.dumps(description))
    for name, ids in zip(("a", "b", "city/c"), truth, strict=True):
        write(truth_folder / f"{name}.png", np.where(ids == IGNORE, 0, ids + 5))
    assert score_dataset(truth_folder, guess_folder, FolderData(kind="folder", root=str(tmp_path))).as_json() == before


def test_camvid_is_scored_as_published():
    table = label_map_of(CamVidData(kind="camvid"))
    assert table.apply(np.array([[0, 10, 11]], np.uint8)).tolist() == [[0, 10, IGNORE]]
    assert table.ids() == list(range(12))


def test_digits_hold_class_ids():
    assert label_map_of(DigitsData(kind="digits")).ids() == list(range(11))


@pytest.mark.fault("P3", "a class that never occurs")
def test_absent_class_is_counted_and_left_out_or_zero(folders):
    truth_folder, guess_folder, *_ = folders
    four = (*CLASSES, "moon")
    left_out = score_folders(truth_folder, guess_folder, four).as_json()
    zero = score_folders(truth_folder, guess_folder, four, absent="zero").as_json()
    assert left_out["scores"]["absent_classes"] == zero["scores"]["absent_classes"] == 1
    assert zero["scores"]["miou"] == pytest.approx(left_out["scores"]["miou"] * 3 / 4)
    assert zero["scores"]["boundary_iou"] == pytest.approx(left_out["scores"]["boundary_iou"] * 3 / 4)
    assert left_out["per_class"][3] == {
        "name": "moon",
        "iou": None,
        "accuracy": None,
        "boundary_iou": None,
        "pixels": 0,
    }


@pytest.mark.fault("P3", "predictions that lack, do not fit or cannot be read")
def test_every_fault_is_listed_at_once(folders):
    truth_folder, guess_folder, *_ = folders
    write(truth_folder / "missing.png", np.zeros((4, 4)))
    write(guess_folder / "extra.png", np.zeros((4, 4)))
    write(guess_folder / "a.png", np.zeros((24, 20)))
    write(guess_folder / "b.png", np.full((16, 30), 7))
    (guess_folder / "city" / "c.png").write_bytes((guess_folder / "city" / "c.png").read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        score_folders(truth_folder, guess_folder, CLASSES)
    message = str(caught.value)
    for words in (
        "5 faults",
        "a: the prediction is 20 x 24 instead of the label's 24 x 20",
        "b: the prediction has ids [7], outside 0..2",
        "city/c: ",
        "cannot be read",
        "extra: a prediction without a label",
        "missing: no prediction",
    ):
        assert words in message


@pytest.mark.fault("P3", "predictions in colours or 16 bits")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1"])
def test_colours_and_other_depths_are_refused(folders, mode):
    truth_folder, guess_folder, *_ = folders
    Image.new(mode, (24, 20)).save(guess_folder / "a.png")
    with pytest.raises(DataError, match=f"mode {mode}"):
        score_folders(truth_folder, guess_folder, CLASSES)


def test_anything_may_be_predicted_on_ignored_pixels(folders):
    truth_folder, guess_folder, truth, guess = folders
    before = score_folders(truth_folder, guess_folder, CLASSES).as_json()
    write(guess_folder / "a.png", np.where(truth[0] == IGNORE, 200, guess[0]))
    assert score_folders(truth_folder, guess_folder, CLASSES).as_json() == before


@pytest.mark.fault("P3", "a folder without labels")
def test_no_labels_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no PNG"):
        score_folders(tmp_path / "nothing", tmp_path, CLASSES)


@pytest.mark.fault("P3", "labels that ignore everything")
def test_labels_that_ignore_everything_are_an_error(tmp_path):
    for kind in ("labels", "predictions"):
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / "a.png", np.full((4, 4), IGNORE))
    with pytest.raises(DataError, match="every label pixel is ignored"):
        score_folders(tmp_path / "labels", tmp_path / "predictions", CLASSES)


@pytest.mark.parametrize("ending", ["", "_leftImg8bit", "_gtFine_labelIds"])
def test_cityscapes_labels_are_found_among_what_lies_beside_them(tmp_path, ending):
    """Predictions are named after the label, the image, or what both share; instance and colour maps do not count."""
    base = "frankfurt/frankfurt_000000_000294"
    for folder in ("labels", "predictions"):
        (tmp_path / folder / "frankfurt").mkdir(parents=True)
    write(tmp_path / f"labels/{base}_gtFine_labelIds.png", [[7, 8, 33, 0]])
    for other in ("instanceIds", "color"):
        write(tmp_path / f"labels/{base}_gtFine_{other}.png", [[1, 2, 3, 4]])
    write(tmp_path / f"predictions/{base}{ending}.png", [[0, 1, 17, 200]])
    found = score_dataset(tmp_path / "labels", tmp_path / "predictions", CityscapesData(kind="cityscapes"))
    assert found.evaluation.per_image.ids == (base,)
    assert found.scores.pixel_accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize(("background", "expected"), [(True, 1 / 4), (False, 1 / 3)])
def test_context_labels_are_matlab_files(tmp_path, background, expected):
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
    savemat(tmp_path / "labels/2008_000007.mat", {"LabelMap": np.array([[2, 284, 458, 1]], np.uint16)})
    write(tmp_path / "predictions/2008_000007.png", [[1 if background else 0, 3, 3, 3]])
    config = ContextData(kind="context", background=background)
    found = score_dataset(tmp_path / "labels", tmp_path / "predictions", config)
    assert found.scores.pixel_accuracy == pytest.approx(expected)
    savemat(tmp_path / "labels/2008_000007.mat", {"LabelMap": np.array([[2, 284, 460, 1]], np.uint16)})
    with pytest.raises(DataError, match=r"2008_000007: the label has ids \[460\]"):
        score_dataset(tmp_path / "labels", tmp_path / "predictions", config)


def test_one_split_of_a_folder_of_labels_is_scored_by_its_list(tmp_path):
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
    for name in ("2007_000032", "2007_000033"):
        write(tmp_path / f"labels/{name}.png", [[0, 1, 20, 255]])
    write(tmp_path / "predictions/2007_000033.png", [[0, 1, 1, 1]])
    config, listed = VocData(kind="voc"), tmp_path / "val.txt"
    listed.write_text("2007_000033 1\n\n")
    folders = tmp_path / "labels", tmp_path / "predictions"
    found = score_dataset(*folders, config, names=read_names(listed))
    assert found.evaluation.per_image.ids == ("2007_000033",)
    listed.write_text("2007_000032\n2007_000039\n")
    with pytest.raises(DataError) as told:
        score_dataset(*folders, config, names=read_names(listed))
    for fault in ("2007_000032: no prediction", "2007_000033: a prediction without a label", "2007_000039: no label"):
        assert fault in str(told.value)


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_list_without_names_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(DataError, match="list of what to score"):
        read_names(tmp_path / "val.txt")


def test_damaged_matlab_labels_are_named(tmp_path):
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labels/a.mat").write_bytes(b"<html>")
    write(tmp_path / "predictions/a.png", [[0]])
    with pytest.raises(DataError, match=r"a: .*a.mat cannot be read: is not a MATLAB 5 file"):
        score_dataset(tmp_path / "labels", tmp_path / "predictions", ContextData(kind="context"))


def test_every_published_kind_has_its_label_map():
    ade, coco, voc = (
        label_map_of(config)
        for config in (ADE20KData(kind="ade20k"), CocoStuffData(kind="coco-stuff"), VocAugData(kind="voc-aug"))
    )
    assert ade.apply(np.array([[0, 1, 150]], np.uint8)).tolist() == [[IGNORE, 0, 149]]
    assert coco.apply(np.array([[0, 181, 255]], np.uint8)).tolist() == [[0, 170, IGNORE]]
    assert coco.unknown(np.array([[0, 11, 82, 181]], np.uint8)) == [11, 82]
    assert voc.apply(np.array([[0, 20, 255]], np.uint8)).tolist() == [[0, 20, IGNORE]]
