"""The tables of classes against what is known of them, and the catalogue's facts against the configuration."""

from __future__ import annotations

import re

import pytest

from segkd.config.data import ContextData
from segkd.data.catalogue import ENTRIES, PUBLISHED, ids_hash, info, info_of
from segkd.data.class_tables import class_table
from segkd.data.folder import voc_colour
from segkd.data.labels import CITYSCAPES
from segkd.data.readers import ARCHIVES, READERS, label_files

TABLES = {"cityscapes": 19, "voc": 21, "ade20k": 150, "context": 60, "coco-stuff": 171}
COUNTS = {
    "cityscapes": {"train": 2975, "val": 500},
    "voc": {"train": 1464, "val": 1449},
    "voc-aug": {"train": 1464 + 9118, "val": 1449},
    "ade20k": {"train": 20210, "val": 2000},
    "context": {"train": 4998, "val": 5105},
    "coco-stuff": {"train": 118287, "val": 5000},
}
KNOWN = [  # class, id in the label files, name, colour
    ("cityscapes", 0, 7, "road", (128, 64, 128)),
    ("cityscapes", 10, 23, "sky", (70, 130, 180)),
    ("cityscapes", 15, 28, "bus", (0, 60, 100)),
    ("cityscapes", 18, 33, "bicycle", (119, 11, 32)),
    ("voc", 15, 15, "person", (192, 128, 128)),
    ("voc", 20, 20, "tvmonitor", (0, 64, 128)),
    ("ade20k", 7, 8, "bed", (204, 5, 255)),
    ("ade20k", 89, 90, "television receiver", (0, 255, 194)),
    ("ade20k", 149, 150, "flag", (92, 0, 255)),
    ("context", 0, 0, "background", (120, 120, 120)),
    ("context", 37, 284, "person", (102, 8, 255)),
    ("context", 59, 458, "wood", (31, 0, 255)),
    ("coco-stuff", 11, 12, "stop sign", (0, 0, 224)),
    ("coco-stuff", 79, 89, "toothbrush", (192, 160, 0)),
    ("coco-stuff", 80, 91, "banner", (0, 192, 0)),
    ("coco-stuff", 170, 181, "wood", (64, 64, 0)),
]


@pytest.mark.parametrize(("name", "classes"), TABLES.items())
def test_tables_are_whole(name: str, classes: int) -> None:
    table = class_table(name)
    assert len(table.names) == len(set(table.names)) == len(table.palette) == classes
    assert all(one == one.strip() for one in table.names)
    assert sorted(set(table.ids.values()) - {255}) == list(range(classes))
    assert sum(target != 255 for target in table.ids.values()) == classes
    assert all(0 <= value <= 255 for colour in table.palette for value in colour)


@pytest.mark.parametrize(("name", "target", "one", "title", "colour"), KNOWN)
def test_known_entries(name: str, target: int, one: int, title: str, colour: tuple[int, int, int]) -> None:
    table = class_table(name)
    assert table.ids[one] == target
    assert (table.names[target], table.palette[target]) == (title, colour)


def test_ids_follow_the_published_rules() -> None:
    assert [one for one, target in class_table("cityscapes").ids.items() if target != 255] == list(CITYSCAPES)
    assert set(class_table("cityscapes").ids) == {*range(34), 255}
    assert class_table("voc").palette == tuple(voc_colour(k) for k in range(21))
    assert class_table("ade20k").ids == {one: one - 1 for one in range(1, 151)}
    context = list(class_table("context").ids)
    assert context == sorted(context) and context[:3] == [0, 2, 9]
    never = set(range(182)) - set(class_table("coco-stuff").ids)
    assert never == {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_entries_are_complete(kind: str) -> None:
    facts = info(kind)
    assert facts.counts == COUNTS[kind]
    assert facts.classes == class_table("voc" if kind == "voc-aug" else kind).names
    assert facts.licence and facts.demands and facts.homepage.startswith("http") and not facts.redistributable
    assert kind in READERS


def test_every_kind_has_what_it_needs() -> None:
    assert set(ENTRIES) - {"digits", "camvid"} == set(PUBLISHED) == set(ARCHIVES)


def test_context_without_background() -> None:
    sixty, less = (info_of(ContextData(kind="context", background=one)) for one in (True, False))
    assert (sixty.classes[1:], sixty.palette[1:]) == (less.classes, less.palette)
    assert ("60" in sixty.name, "59" in less.name) == (True, True)
    assert label_files(ContextData(kind="context", background=False)).labels.table[0] == 255


@pytest.mark.parametrize("kind", PUBLISHED)
def test_archives_can_be_verified_and_found_by_hand(kind: str) -> None:
    """Two archives were never published with a hash: their first download is trusted, and the counts are checked."""
    for archive in ARCHIVES[kind]:
        hashes = [(archive.sha256, 64), (archive.sha1, 40), (archive.md5, 32)]
        assert all(one is None or re.fullmatch(rf"[0-9a-f]{{{size}}}", one) for one, size in hashes)
        unverified = archive.name in {"trainval.tar.gz", "stuffthingmaps_trainval2017.zip"}
        assert any(one for one, _ in hashes) != unverified
        assert archive.page and archive.unpacked and archive.wanted
        assert (archive.account == "cityscapes") == (kind == "cityscapes")


def test_a_list_is_named_by_its_ids_whatever_their_order() -> None:
    assert ids_hash(["b", "a"]) == ids_hash(["a", "b"]) != ids_hash(["ab"])
    assert ids_hash(["a"]) == "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7"  # sha256 of "a\n"
