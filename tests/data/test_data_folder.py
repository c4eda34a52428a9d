"""A user's folder: its description, its pairs, its faults."""

from __future__ import annotations

import pytest
from made_data import DESCRIPTION, folder, ids, picture, png, prepared, put

from segkd.config.data import FolderData
from segkd.data.catalogue import info_of
from segkd.data.folder import describe, files, pairs, voc_colour
from segkd.data.prepared import Prepared
from segkd.errors import ConfigError, DataError


def described(tmp_path, text: str):
    put(tmp_path / "dataset.yaml", text)
    return describe(FolderData(kind="folder", root=str(tmp_path)))


@pytest.mark.fault("P3", "a wrong description of a data set")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, b]\nignor: 255\n", "ignor: unknown key; did you mean 'ignore'?"),
        ("classes: [a]\n", "at least 2"),
        ("classes: [a, a]\n", "must differ"),
        ("classes: [a, b]\ncolours: [[0, 0, 0]]\n", "1 colours for 2 classes"),
        ("classes: [a, b]\ncolours: [[0, 0, 300], [0, 0, 0]]\n", "colours.0.2"),
        ("classes: [a, b]\nignore: 1\n", r"ids \[1\] are ignored and classes at once"),
        ("classes: [a, b]\nmap: {0: sky}\n", "map leads to 'sky'"),
        ("classes: [a, b]\nmap: {0: 7}\n", "map leads to 7"),
        ("classes: [a, b]\nmap: {300: a}\n", "map.300"),
        ("classes: [a, b]\nmap: {0: a}\nfirst_id: 1\n", "not both"),
        ("classes: [a, b]\nlists: {training: x.txt}\n", "lists.training"),
        ("classes: !!python/object:os.system [a]\n", "cannot be read"),
    ],
)
def test_a_wrong_description_is_refused_with_its_reason(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        described(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "ids_", "targets"),
    [
        ("classes: [a, b]\n", [0, 1, 255], [0, 1, 255]),
        ("classes: [a, b]\nignore: [2, 255]\n", [0, 1, 2, 255], [0, 1, 255, 255]),
        ("classes: [a, b]\nfirst_id: 1\nignore: 0\n", [0, 1, 2], [255, 0, 1]),
        ("classes: [a, b]\nmap: {7: a, 8: b, 9: 1, 10: ignore}\n", [7, 8, 9, 10, 255], [0, 1, 1, 255, 255]),
        ("classes: [a, b]\nmap: {0: 0, 255: 1}\nignore: []\n", [0, 255], [0, 1]),
    ],
)
def test_ids_become_classes(tmp_path, text, ids_, targets):
    labels = described(tmp_path, text).label_map()
    assert labels.ids() == ids_
    assert [int(labels.table[one]) for one in ids_] == targets


def test_unlisted_ids_can_be_ignored(tmp_path):
    labels = described(tmp_path, "classes: [a, b]\nunlisted: ignore\n").label_map()
    assert len(labels.ids()) == 256 and labels.table[77] == 255


def test_colours_are_vocs_where_none_are_given(tmp_path):
    assert [voc_colour(k) for k in (0, 1, 2, 20)] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 64, 128)]
    assert described(tmp_path, "classes: [a, b]\ncolours: [[1, 2, 3], [4, 5, 6]]\n").info().palette[1] == (4, 5, 6)


def test_the_catalogue_reads_the_description(tmp_path):
    info = info_of(folder(tmp_path, description=DESCRIPTION + "name: Streets\ncounts: {train: 4}\n"))
    assert (info.name, info.classes, info.counts) == ("Streets", ("road", "car", "sky"), {"train": 4})
    assert not info.redistributable


def test_pairs_come_in_a_fixed_order_with_nested_names_and_suffixes(tmp_path):
    text = DESCRIPTION + "image_suffix: _leftImg8bit\nlabel_suffix: _gtFine_labelIds\n"
    put(tmp_path / "dataset.yaml", text)
    for k, (split, name) in enumerate([("train", "b/2"), ("train", "a/1"), ("val", "a/3")]):
        put(tmp_path / f"images/{split}/{name}_leftImg8bit.png", png(picture(k)))
        put(tmp_path / f"labels/{split}/{name}_gtFine_labelIds.png", png(ids(k)))
        put(tmp_path / f"labels/{split}/{name}_gtFine_color.png", png(picture(k)))
    config = FolderData(kind="folder", root=str(tmp_path))
    found, faults = pairs(config, describe(config))
    assert [(pair.split, pair.id) for pair in found] == [("train", "a/1"), ("train", "b/2"), ("val", "a/3")]
    assert faults == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_lists_are_read_with_blank_lines_crlf_and_a_mark(tmp_path, end):
    config = folder(tmp_path, description=DESCRIPTION + "lists: {train: train.txt, val: val.txt}\n")
    lines = [f"images/train/train{k}.png labels/train/train{k}.png" for k in (2, 0)]
    put(tmp_path / "train.txt", "\ufeff" + end.join([*lines, ""]))
    put(tmp_path / "val.txt", "images/val/val0.png\tlabels/val/val0.png" + end)
    found, faults = pairs(config, describe(config))
    assert [pair.image for pair in found] == [
        f"images/{name}.png" for name in ("train/train2", "train/train0", "val/val0")
    ]
    assert faults == [] and files(config)[:3] == ["dataset.yaml", "train.txt", "val.txt"]


@pytest.mark.fault("P4", "lists with missing files, absolute paths and paths that lead out")
def test_faults_of_lists_are_named_by_line(tmp_path):
    config = folder(tmp_path, description=DESCRIPTION + "lists: {train: train.txt, val: none.txt}\n")
    good = "images/train/train0.png labels/train/train0.png"
    lines = [good, "images/train/train1.png", "a.png b.png", "../x.png y.png", "/etc/x.png y.png", good]
    put(tmp_path / "train.txt", "\n".join(lines))
    with pytest.raises(DataError) as caught:
        prepared(config, tmp_path / "out")
    for fault in (
        "train.txt, line 2: expected `image label`",
        "train.txt, line 3: a.png is missing",
        "train.txt, line 4: ../x.png lies outside",
        "train.txt, line 5: /etc/x.png lies outside",
        "images/train/train0.png: stands twice in train",
        "none.txt: cannot be read",
        "there must be images in train and in val or test; found train",
    ):
        assert fault in str(caught.value)


@pytest.mark.fault("P3", "names that are one on some systems")
def test_clashing_names_are_reported(tmp_path):
    config = folder(tmp_path)
    put(tmp_path / "images/train/TRAIN0.png", png(picture(50)))
    put(tmp_path / "labels/train/TRAIN0.png", png(ids(50)))
    put(tmp_path / "images/train/train1.jpg", png(picture(51)))
    _, faults = pairs(config, describe(config))
    assert any("train0.png has the name" in one or "has the name of images/train" in one for one in faults)
    assert any("another image has the same name and another extension" in one for one in faults)


@pytest.mark.fault("P3", "names with spaces, quotes and umlauts")
def test_names_with_spaces_quotes_and_umlauts_work(tmp_path):
    root = tmp_path / "my 'data' ünicode"
    config = folder(root)
    put(root / "images/train/grüße 'x'.png", png(picture(50)))
    put(root / "labels/train/grüße 'x'.png", png(ids(50)))
    assert "grüße 'x'" in Prepared(prepared(config, tmp_path / "out dir")).split("train").ids


@pytest.mark.fault("P3", "a data set's folder that is missing")
def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset.yaml"):
        info_of(FolderData(kind="folder", root=str(tmp_path / "none")))


@pytest.mark.fault("P4", "a user's own folder of images")
def test_the_folder_is_never_changed(tmp_path):
    config = folder(tmp_path / "files")
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (tmp_path / "files").rglob("*.*")}
    prepared(config, tmp_path)
    assert {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in (tmp_path / "files").rglob("*.*")} == before
