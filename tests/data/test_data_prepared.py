"""Preparation writes what was in the files, exactly and reproducibly; reading refuses what is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_data import DESCRIPTION, folder, ids, picture, prepared

from segkd.config.data import DigitsData
from segkd.data.download import exclusive
from segkd.data.prepare import prepare
from segkd.data.prepared import Prepared
from segkd.errors import DataError, LockedError

DIGITS = DigitsData(
    kind="digits", size=32, digits=(1, 2), digit_size=(12, 16), scenes={"train": 3, "val": 2, "test": 2}
)


@pytest.fixture
def mine(tmp_path):
    return Prepared(prepared(folder(tmp_path / "files"), tmp_path))


def test_images_and_labels_of_any_size_come_back_exactly(mine):
    seed = 0
    for name, count in {"train": 4, "val": 2, "test": 2}.items():
        split = mine.split(name)
        assert len(split) == count and split.ids == [f"{name}{k}" for k in range(count)]
        for k in range(count):
            seed += 1
            assert split.size(k) == (12 + k, 16)
            assert np.array_equal(split.image(k), picture(seed, 12 + k))
            assert np.array_equal(split.label(k), ids(seed, 12 + k))


def test_views_cannot_be_written(mine):
    with pytest.raises(ValueError, match="read-only"):
        mine.split("train").image(0)[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        mine.split("train").label(0)[0, 0] = 1


def test_pixels_are_counted_per_class_and_split(mine):
    for name in ("train", "val", "test"):
        split = mine.split(name)
        labels = np.concatenate([split.label(k).ravel() for k in range(len(split))])
        assert mine.class_pixels[name].tolist() == [(labels == k).sum() for k in range(3)]
        assert mine.ignored_pixels[name] == (labels == 255).sum()


def test_channel_statistics_are_those_of_train(mine):
    split = mine.split("train")
    pixels = np.concatenate([split.image(k).reshape(-1, 3) for k in range(len(split))]).astype(float)
    np.testing.assert_allclose(mine.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(mine.std, pixels.std(0), rtol=1e-12)


@pytest.mark.fault("P1", "the same files in another place")
def test_the_same_files_give_the_same_bytes_elsewhere(tmp_path):
    outs = []
    for place in ("one", "two"):
        config = folder(tmp_path / place / "files")
        outs.append(prepared(config, tmp_path / place))
    for name in ("images.bin", "labels.bin", "index.npz"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    assert Prepared(outs[0]).sha256 == Prepared(outs[1]).sha256


def test_class_names_belong_to_the_hash_and_pixels_too(tmp_path, mine):
    renamed = prepared(folder(tmp_path / "b", description="classes: [road, car, cloud]\n"), tmp_path / "b")
    fewer = prepared(folder(tmp_path / "c", {"train": 3, "val": 2, "test": 2}), tmp_path / "c")
    assert len({mine.sha256, Prepared(renamed).sha256, Prepared(fewer).sha256}) == 3


def test_a_map_is_applied_and_void_becomes_255(tmp_path):
    text = "classes: [ground, car]\nmap: {0: ground, 1: car, 2: ground, 255: ignore}\n"
    split = Prepared(prepared(folder(tmp_path / "files", description=text), tmp_path)).split("train")
    assert np.array_equal(split.label(0), np.array([0, 1, 0] + [255] * 253, np.uint8)[ids(1)])


def test_a_data_set_without_test_says_so(tmp_path):
    data = Prepared(prepared(folder(tmp_path / "files", {"train": 2, "val": 1}), tmp_path))
    with pytest.raises(DataError, match=r"no split 'test'[\s\S]*train, val"):
        data.split("test")


def test_manifest_says_whether_it_may_be_passed_on(tmp_path, mine):
    assert mine.manifest["redistributable"] is False
    text = DESCRIPTION + "redistributable: true\nlicence: CC0\n"
    free = Prepared(prepared(folder(tmp_path / "b", description=text), tmp_path / "b"))
    assert (free.manifest["redistributable"], free.manifest["licence"]) == (True, "CC0")


@pytest.mark.fault("P3", "prepared data that are cut off")
@pytest.mark.parametrize("name", ["images.bin", "labels.bin", "index.npz"])
def test_a_shortened_file_is_refused(mine, name):
    file = mine.path / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name}[\s\S]*segkd prepare"):
        Prepared(mine.path)


@pytest.mark.fault("P3", "a flipped bit in prepared data")
def test_a_flipped_bit_is_found_by_verify_and_in_the_index_at_once(mine):
    mine.verify()
    for name, look in [("images.bin", mine.verify), ("index.npz", lambda: Prepared(mine.path))]:
        content = bytearray((mine.path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (mine.path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            look()


@pytest.mark.fault("P3", "prepared data without manifest, or with another's")
def test_a_missing_or_foreign_manifest_is_refused(mine):
    manifest = json.loads((mine.path / "manifest.json").read_text())
    (mine.path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        Prepared(mine.path)
    (mine.path / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest.json"):
        Prepared(mine.path)


def test_digits_are_prepared_as_they_are_drawn(tmp_path):
    from segkd.data.digits import scenes

    data = Prepared(prepared(DIGITS, tmp_path))
    assert len(data.classes) == 11 and len(data.palette) == 11
    for name, (images, labels) in scenes(DIGITS).items():
        split = data.split(name)
        assert all(np.array_equal(split.image(k), images[k]) for k in range(len(images)))
        assert all(np.array_equal(split.label(k), labels[k]) for k in range(len(labels)))


@pytest.mark.fault("P3", "data downloaded for another configuration")
def test_data_downloaded_for_another_configuration_are_refused(tmp_path):
    prepared(DIGITS, tmp_path)
    other = DIGITS.model_copy(update={"seed": 1})
    with pytest.raises(DataError, match=r"another configuration[\s\S]*segkd download digits"):
        prepare("digits", other, tmp_path / "raw", tmp_path / "prepared")


@pytest.mark.fault("P3", "two preparations of one data set at once")
def test_two_writers_are_one_too_many(tmp_path):
    with exclusive(tmp_path / "prepared"), pytest.raises(LockedError, match="Another process"):
        prepared(DIGITS, tmp_path)
