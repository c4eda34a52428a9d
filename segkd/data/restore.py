"""Prepared data that are not there any more, made again from their receipt.

Data sets are never pushed or cached by DVC, since many licences forbid to pass them on; only their hashes travel. So a
clone after `dvc pull`, or a disk that was tidied, has results and receipts but no data. Whatever then needs the data
makes them again, and goes on only if they are the same to the byte.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from filelock import FileLock

from segkd.config.data import DatasetConfig
from segkd.config.runs import PREPARED, RAW
from segkd.data.prepared import content_hash
from segkd.errors import DataError, explain
from segkd.files import read_json, write_json

RECEIPTS = Path("data/receipts")
log = logging.getLogger(__name__)


def give_receipt(name: str, root: Path = Path()) -> Path:
    """Copy the prepared data's manifest to data/receipts/<name>.json, which DVC keeps."""
    receipt = root / RECEIPTS / f"{name}.json"
    write_json(receipt, read_json(root / PREPARED / name / "manifest.json"))
    return receipt


def restore(name: str, config: DatasetConfig, root: Path = Path()) -> Path:
    """data/prepared/<name>, made again if its receipt is there and the data are not, or are others.

    Without a receipt nothing is done: the data were never prepared here. Of several processes one does it, the others
    wait. DataError where what was made is not what the receipt says.
    """
    prepared, receipt = root / PREPARED / name, root / RECEIPTS / f"{name}.json"
    if not receipt.exists() or _same(prepared, receipt):
        return prepared
    prepared.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(prepared.parent / f".{name}.restore.lock"):
        if not _same(prepared, receipt):
            _make(name, config, root)
        if not _same(prepared, receipt):
            raise DataError(
                explain(
                    f"Data set {name!r}, made again, is not the one that the results here came from.",
                    expected=_content(read_json(receipt)),
                    found=_content(read_json(prepared / "manifest.json")),
                    where=prepared,
                    fix=f"get the same source, or accept the new one: segkd prepare {name}, then snakemake",
                )
            )
    return prepared


def _make(name: str, config: DatasetConfig, root: Path) -> None:
    from segkd.data.download import download
    from segkd.data.prepare import prepare

    log.info("%s: only its receipt is here; making the data again", name)
    raw = root / RAW / name
    manifest = raw / "manifest.json"
    if not manifest.exists() or read_json(manifest).get("config") != config.model_dump(mode="json"):
        download(name, config, raw)
    prepare(name, config, raw, root / PREPARED / name)


def _same(prepared: Path, receipt: Path) -> bool:
    manifest = prepared / "manifest.json"
    return manifest.exists() and _content(read_json(manifest)) == _content(read_json(receipt))


def _content(manifest: dict[str, Any]) -> str:
    return content_hash(manifest["files"], list(manifest["classes"]))
