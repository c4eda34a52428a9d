"""`folder`: a user's own images and label PNGs, described by a small YAML in the same folder.

    classes: [road, car]                    # or, with colours, colours: [[128, 64, 128], [0, 0, 142]]
    ignore: 255                             # id or ids in the label files that do not count

Files stand in images/{train,val,test} and labels/{train,val,test} (any depth, same names), or in lists.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from segkd.config.base import Closed
from segkd.config.data import FolderData
from segkd.config.load import load
from segkd.data.catalogue import Colour, Info
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.prepared import SPLITS, SplitName
from segkd.data.sources import Collection, Pair
from segkd.errors import DataError, explain

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})

Byte = Annotated[int, Field(ge=0, le=255)]


class Description(Closed):
    """dataset.yaml: what the files mean."""

    name: str = "own images"
    classes: tuple[str, ...] = Field(min_length=2, max_length=255)
    colours: tuple[tuple[Byte, Byte, Byte], ...] | None = Field(None, description="RGB per class; none = VOC's series")
    ignore: tuple[Byte, ...] = Field((IGNORE,), description="id or list of ids that do not count")
    first_id: int = Field(0, ge=0, le=255, description="id of the first class in the label files")
    map: dict[Byte, str | Byte] | None = Field(None, description="id -> class (name or number) or `ignore`")
    unlisted: Literal["error", "ignore"] = Field("error", description="what an id beside these is")
    lists: dict[SplitName, str] | None = Field(
        None, description="files with lines `image label`, instead of the folders"
    )
    image_suffix: str = Field("", description="end of an image's name before the extension, beside the label's")
    label_suffix: str = Field("", description="end of a label's name before the extension")
    counts: dict[SplitName, int] | None = Field(None, description="images that each split must have")
    licence: str = "not stated"
    demands: str = ""
    redistributable: bool = False
    homepage: str = ""

    @field_validator("ignore", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> Description:
        if len(set(self.classes)) != len(self.classes) or "ignore" in self.classes:
            raise ValueError("class names must differ from each other and from `ignore`")
        if self.colours is not None and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        if self.map is not None and self.first_id:
            raise ValueError("give map or first_id, not both")
        if self.first_id + len(self.classes) > 256:
            raise ValueError("ids must stay within 0 to 255")
        self._targets()
        return self

    def _targets(self) -> dict[int, int]:
        """Id in the files -> class or 255. An id that `map` names is what `map` says; else `ignore` decides."""
        if self.map is None:
            targets = {self.first_id + k: k for k in range(len(self.classes))}
            if clash := sorted(set(targets) & set(self.ignore) - {IGNORE}):
                raise ValueError(f"ids {clash} are ignored and classes at once: correct ignore or first_id")
        else:
            targets = {one: self._target(target) for one, target in self.map.items()}
        return {**dict.fromkeys(self.ignore, IGNORE), **targets}

    def _target(self, target: str | int) -> int:
        if target == "ignore":
            return IGNORE
        number = self.classes.index(target) if target in self.classes else target
        if not isinstance(number, int) or number >= len(self.classes):
            raise ValueError(f"map leads to {target!r}, which is neither a class, its number nor `ignore`")
        return number

    def label_map(self) -> LabelMap:
        """The map of the files' ids to classes."""
        return LabelMap.of(self._targets(), others=IGNORE if self.unlisted == "ignore" else None)

    def info(self) -> Info:
        """The catalogue's form of this description."""
        counts = {str(split): count for split, count in self.counts.items()} if self.counts else None
        palette = self.colours or tuple(voc_colour(k) for k in range(len(self.classes)))
        return Info(
            self.name, self.classes, palette, counts, self.licence, self.demands, self.redistributable, self.homepage
        )


def voc_colour(k: int) -> Colour:
    """The k-th colour of Pascal VOC's series: bits of k dealt to red, green and blue from the highest bit down."""
    red, green, blue = (sum(((k >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
    return red, green, blue


def describe(config: FolderData) -> Description:
    """The description file, checked; ConfigError lists every fault."""
    return load(Description, Path(config.root) / config.description)


def pairs(config: FolderData, description: Description) -> tuple[list[Pair], list[str]]:
    """All pairs of image and label in a fixed order, and what is wrong with their names."""
    root = Path(config.root)
    found: list[Pair] = []
    faults: list[str] = []
    for split in SPLITS:
        if description.lists is not None:
            one, wrong = _listed(root, split, description.lists.get(split))
        else:
            one, wrong = _matched(root, split, description)
        found, faults = found + one, faults + wrong + _clashes(split, one)
    present = {pair.split for pair in found}
    if "train" not in present or not present - {"train"}:
        there = ", ".join(sorted(present)) or "no pair"
        faults.append(f"splits: there must be images in train and in val or test; found {there}")
    return found, faults


def _matched(root: Path, split: str, description: Description) -> tuple[list[Pair], list[str]]:
    """Pairs by equal names below images/<split> and labels/<split>."""
    images, twins = _named(root, f"images/{split}", description.image_suffix)
    labels, others = _named(root, f"labels/{split}", description.label_suffix)
    faults = [f"{name}: another image has the same name and another extension" for name in twins + others]
    faults += [f"{images[key]}: has no label in labels/{split}" for key in sorted(images.keys() - labels.keys())]
    faults += [f"{labels[key]}: has no image in images/{split}" for key in sorted(labels.keys() - images.keys())]
    return [Pair(split, key, images[key], labels[key]) for key in sorted(images.keys() & labels.keys())], faults


def _named(root: Path, folder: str, suffix: str) -> tuple[dict[str, str], list[str]]:
    """(id -> name, names whose id is taken) of the image files below a folder that end with `suffix`."""
    names: dict[str, str] = {}
    twins = []
    for file in sorted((root / folder).rglob("*")):
        key = str(PurePosixPath(file.relative_to(root / folder).as_posix()).with_suffix(""))
        if file.suffix.lower() not in SUFFIXES or not key.endswith(suffix) or file.name.startswith("."):
            continue
        name = file.relative_to(root).as_posix()
        if names.setdefault(key.removesuffix(suffix), name) != name:
            twins.append(name)
    return names, twins


def _listed(root: Path, split: str, name: str | None) -> tuple[list[Pair], list[str]]:
    """Pairs of a list file; blank lines and CRLF are harmless, paths outside the folder are not."""
    if name is None:
        return [], []
    try:
        lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{name}: cannot be read: {error}"]
    found, faults = [], []
    for number, line in enumerate(lines, 1):
        fields = line.strip().split("\t") if "\t" in line else line.split()
        if not fields:
            continue
        if fault := _line_fault(root, fields):
            faults.append(f"{name}, line {number}: {fault}")
        else:
            found.append(Pair(split, str(PurePosixPath(fields[0]).with_suffix("")), fields[0], fields[1]))
    return found, faults


def _line_fault(root: Path, fields: list[str]) -> str:
    if len(fields) != 2:
        return f"expected `image label` (a tab between names with spaces), found {len(fields)} fields"
    for field in fields:
        if PurePosixPath(field).is_absolute() or ".." in PurePosixPath(field).parts:
            return f"{field} lies outside the folder"
        if not (root / field).is_file():
            return f"{field} is missing"
    return ""


def _clashes(split: str, found: list[Pair]) -> list[str]:
    """Ids that stand twice, or differ only in case (one file on some systems)."""
    seen: dict[str, Pair] = {}
    faults = []
    for pair in found:
        earlier = seen.setdefault(pair.id.lower(), pair)
        if earlier is not pair:
            what = "stands twice" if earlier.image == pair.image else f"has the name of {earlier.image} but for case"
            faults.append(f"{pair.image}: {what} in {split}")
    return faults


def files(config: FolderData) -> list[str]:
    """Names of everything that the data set is made from, below its root."""
    description = describe(config)
    found, _ = pairs(config, description)
    lists = [name for name in (description.lists or {}).values() if (Path(config.root) / name).is_file()]
    paired = [name for pair in found for name in (pair.image, pair.label)]
    return list(dict.fromkeys([config.description, *lists, *paired]))


def collect(config: FolderData, manifest: dict[str, Any]) -> Collection:
    """Pairs of the folder, to be checked against the hashes of raw/manifest.json."""
    description = describe(config)
    found, faults = pairs(config, description)
    hashes = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return Collection(description.info(), Path(config.root), found, description.label_map(), hashes, None, faults)


def require_root(config: FolderData) -> Path:
    """The folder; DataError where there is none."""
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(
            explain(
                "The folder of a data set is missing.",
                expected="a folder with images, labels and " + config.description,
                found="no such folder",
                where=root,
                fix="correct `root` in params.yaml (relative to the project), or put the files there",
            )
        )
    return root
