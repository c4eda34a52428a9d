"""Facts of the published data sets: counts, licences, what they demand. Classes and colours: class_tables.

Sources: papers/datasets, the data sets' own pages. What was never downloaded here has no hash of its ids: then the
archives' hashes and the counts decide, and `prepare` records the hash it finds. ADE20K's ids are numbered through.
"""

from __future__ import annotations

from dataclasses import replace

from segkd.data.catalogue import Info, ids_hash
from segkd.data.class_tables import class_table

FLICKR = "images: Flickr's terms of use, each picture its owner's"
EVERINGHAM = "cite Everingham et al. (IJCV 2010)"


def _info(
    table: str, name: str, counts: dict[str, int], licence: str, demands: str, homepage: str, **more: dict[str, str]
) -> Info:
    found = class_table(table)
    return Info(name, found.names, found.palette, counts, licence, demands, False, homepage, **more)


def context(background: bool, sixty: Info) -> Info:
    """Pascal Context with 60 classes, or with 59: background then is ignored, and the classes count from 0."""
    if background:
        return sixty
    return replace(sixty, name=sixty.name.replace("60", "59"), classes=sixty.classes[1:], palette=sixty.palette[1:])


def _numbered(form: str, count: int) -> str:
    return ids_hash(form.format(number) for number in range(1, count + 1))


INFOS: dict[str, Info] = {
    "cityscapes": _info(
        "cityscapes",
        "Cityscapes, fine annotations, 19 classes, 2048 x 1024",
        {"train": 2975, "val": 500},
        "Cityscapes' own: non-commercial",
        "an account of one's own; only research, teaching, publications and personal experiments; no copies to others; "
        "cite Cordts et al. (CVPR 2016)",
        "https://www.cityscapes-dataset.com/",
    ),
    "voc": _info(
        "voc",
        "Pascal VOC 2012 segmentation, 21 classes",
        {"train": 1464, "val": 1449},
        FLICKR,
        EVERINGHAM,
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    ),
    "voc-aug": _info(
        "voc",
        "Pascal VOC 2012 with the masks of SBD, 21 classes",
        {"train": 10582, "val": 1449},
        f"{FLICKR}; SBD's masks: none stated, published for research",
        f"{EVERINGHAM} and Hariharan et al. (ICCV 2011)",
        "http://home.bharathh.info/pubs/codes/SBD/download.html",
    ),
    "ade20k": _info(
        "ade20k",
        "ADE20K scene parsing (2016), 150 classes",
        {"train": 20210, "val": 2000},
        "images: non-commercial research and education; annotations: BSD-3-Clause",
        "only research and education; cite Zhou et al. (CVPR 2017; IJCV 2019)",
        "http://sceneparsing.csail.mit.edu/",
        ids_sha256={"train": _numbered("ADE_train_{:08d}", 20210), "val": _numbered("ADE_val_{:08d}", 2000)},
    ),
    "context": _info(
        "context",
        "Pascal Context, 60 classes",
        {"train": 4998, "val": 5105},
        f"{FLICKR}; annotations: none stated, published for research",
        f"cite Mottaghi et al. (CVPR 2014) and {EVERINGHAM.removeprefix('cite ')}",
        "https://cs.stanford.edu/~roozbeh/pascal-context/",
    ),
    "coco-stuff": _info(
        "coco-stuff",
        "COCO-Stuff 164k, 171 classes",
        {"train": 118287, "val": 5000},
        f"annotations: CC BY 4.0; {FLICKR}",
        "name the source; cite Caesar, Uijlings, Ferrari (CVPR 2018) and Lin et al. (ECCV 2014)",
        "https://github.com/nightrome/cocostuff",
    ),
}
