"""Prepared data of which only the receipt is left are made again, the same to the byte, or not accepted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segkd.config.load import load_params
from segkd.data.restore import RECEIPTS, restore
from segkd.errors import DataError

PREPARED = "data/prepared/digits"


@pytest.fixture
def project(new_project: Callable[..., Path]) -> Path:
    return new_project()


def again(root: Path) -> Path:
    return restore("digits", load_params(root / "params.yaml").datasets["digits"], root)


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / PREPARED).iterdir()}


def test_prepare_leaves_a_receipt(project: Path) -> None:
    receipt = json.loads((project / RECEIPTS / "digits.json").read_text())
    assert receipt == json.loads((project / PREPARED / "manifest.json").read_text())


@pytest.mark.fault("P1", "prepared data that were lost")
def test_lost_data_come_back_the_same(project: Path) -> None:
    before = content(project)
    for folder in ("data/raw", "data/prepared"):
        shutil.rmtree(project / folder)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(again, [project] * 4)) == {project / PREPARED}
    assert content(project) == before


def test_data_of_another_configuration_are_replaced(new_project: Callable[..., Path]) -> None:
    """After `git checkout REV && dvc checkout` the receipt is REV's, and the data lie as they were."""
    project = new_project()
    other = new_project("other", lambda values: values["datasets"]["digits"].update(seed=5))
    shutil.copy(other / "params.yaml", project / "params.yaml")
    shutil.copy(other / RECEIPTS / "digits.json", project / RECEIPTS / "digits.json")
    again(project)
    assert content(project) == content(other)


def test_data_that_are_there_are_not_touched(project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (project / PREPARED).iterdir()}
    again(project)
    assert {path: path.stat().st_mtime_ns for path in (project / PREPARED).iterdir()} == before


def test_without_a_receipt_nothing_is_made(project: Path) -> None:
    shutil.rmtree(project / "data")
    assert not again(project).exists()


@pytest.mark.fault("P3", "restored data that differ from the receipt")
def test_other_data_than_the_receipt_names_are_refused(project: Path) -> None:
    receipt = project / RECEIPTS / "digits.json"
    named = json.loads(receipt.read_text())
    named["files"]["labels.bin"]["sha256"] = "0" * 64
    receipt.write_text(json.dumps(named))
    with pytest.raises(DataError, match="not the one that the results here came from"):
        again(project)
