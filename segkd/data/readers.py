"""Per kind of data set: its reader, the archives that it is published as, and how its own label files are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkd.config.data import ContextData, DatasetConfig, FolderData
from segkd.data import ade20k, camvid, cityscapes, coco_stuff, context, folder, voc
from segkd.data.archives import Archive
from segkd.data.catalogue import info_of
from segkd.data.labels import LabelMap
from segkd.data.sources import Collection, LabelFiles

READERS: dict[str, Callable[[Any, Path, dict[str, Any]], Collection]] = {
    "camvid": lambda _, raw, manifest: camvid.collect(raw, manifest),
    "folder": lambda config, _, manifest: folder.collect(config, manifest),
    "cityscapes": cityscapes.collect,
    "voc": voc.collect,
    "voc-aug": voc.collect_aug,
    "ade20k": ade20k.collect,
    "context": context.collect,
    "coco-stuff": coco_stuff.collect,
}

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "cityscapes": cityscapes.ARCHIVES,
    "voc": voc.ARCHIVES,
    "voc-aug": voc.AUG_ARCHIVES,
    "ade20k": ade20k.ARCHIVES,
    "context": context.ARCHIVES,
    "coco-stuff": coco_stuff.ARCHIVES,
}

_LABEL_FILES: dict[str, Callable[[], LabelFiles]] = {
    "camvid": lambda: LabelFiles(camvid.label_map()),
    "cityscapes": lambda: LabelFiles(cityscapes.label_map(), ending=cityscapes.LABEL, image_ending=cityscapes.IMAGE),
    "voc": lambda: LabelFiles(voc.label_map()),
    "voc-aug": lambda: LabelFiles(voc.label_map()),  # only its train has .mat files, and val is what is scored
    "ade20k": lambda: LabelFiles(ade20k.label_map()),
    "coco-stuff": lambda: LabelFiles(coco_stuff.label_map()),
}


def label_files(config: DatasetConfig) -> LabelFiles:
    """How the label files of a data set are read, as published or, of a `folder`, as described."""
    if isinstance(config, FolderData):
        return LabelFiles(folder.describe(config).label_map())
    if isinstance(config, ContextData):
        return LabelFiles(context.label_map(config.background), context.MASK, ending=".mat")
    if config.kind in _LABEL_FILES:
        return _LABEL_FILES[config.kind]()
    return LabelFiles(LabelMap.of({one: one for one in range(len(info_of(config).classes))}))
