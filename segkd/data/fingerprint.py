"""What data will be there, as one hash, before they are there; cheap enough for every look at the workflow."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segkd.config.base import digest
from segkd.config.data import CamVidData, DatasetConfig, DigitsData, FolderData
from segkd.config.runs import RAW
from segkd.errors import DataError, explain
from segkd.files import read_json, sha256_file, write_json

HASHES = RAW / ".hashes"
FRESH = 2_000_000_000  # ns: a file changed as recently as this could change again without a newer time stamp


def source_fingerprint(config: DatasetConfig, cache: Path | None = HASHES) -> str:
    """Hash of what a data set is made from: configuration, published hashes, or a user's files' content."""
    source: object
    if isinstance(config, DigitsData):
        source = embedded_digits_sha256()
    elif isinstance(config, CamVidData):
        from segkd.data import camvid

        source = sha256_file(camvid.MANIFEST)
    elif isinstance(config, FolderData):
        from segkd.data import folder

        root = folder.require_root(config)
        source = hash_files(root, folder.files(config), cache)
        return digest({"kind": config.kind, "source": source})  # where the folder lies does not matter
    else:
        source = _published(config)
    return digest({"config": config.model_dump(mode="json"), "source": source})


def _published(config: DatasetConfig) -> dict[str, object]:
    """What decides a data set that is published as archives: which files, and what their ids mean."""
    from segkd.data.catalogue import info_of
    from segkd.data.readers import ARCHIVES, label_files

    keys = ("url", "wanted", "into", "sha256", "sha1", "md5")
    archives = [{key: getattr(archive, key) for key in keys} for archive in ARCHIVES[config.kind]]
    info, labels = info_of(config), label_files(config).labels
    meaning = [info.classes, info.palette, labels.table.tolist(), labels.known.tolist()]
    return {"archives": archives, "meaning": meaning}


def embedded_digits_sha256() -> str:
    """sha256 (hex) of the handwritten digits within scikit-learn, without importing it."""
    spec = importlib.util.find_spec("sklearn")
    path = Path(spec.origin).parent / "datasets/data/digits.csv.gz" if spec and spec.origin else None
    if path is None or not path.exists():
        raise DataError(
            explain(
                "The handwritten digits are missing.",
                expected="scikit-learn with datasets/data/digits.csv.gz",
                found=path or "no scikit-learn",
                where="the Python environment",
                fix="install segkd's dependencies again",
            )
        )
    return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()


def hash_files(root: Path, names: Iterable[str], cache: Path | None) -> dict[str, str]:
    """sha256 of each file below `root`. cache: folder that remembers hashes of files unchanged in size and time."""
    store = cache / f"{digest(str(root.resolve()))}.json" if cache else None
    known: dict[str, Any] = read_json(store) if store and store.exists() else {}
    fresh: dict[str, Any] = {}
    for name in names:
        stat = (root / name).stat()
        entry = known.get(name)
        if entry is None or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
            entry = [stat.st_size, stat.st_mtime_ns, sha256_file(root / name)]
        fresh[name] = entry
    if store and fresh != known:
        now = time.time_ns()
        write_json(store, {name: entry for name, entry in fresh.items() if now - entry[1] > FRESH})
    return {name: entry[2] for name, entry in fresh.items()}
