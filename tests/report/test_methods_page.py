"""docs/methods.md: as the classes are now, with every method and every key."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from segkd.methods.registry import available, method_class

PAGE = Path(__file__).parents[2] / "docs/methods.md"


@pytest.fixture(scope="module")
def section():
    """Text below a method's heading in the committed page."""
    parts = re.split(r"^## (\S+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_committed_page_is_the_generated_one(tmp_path):
    # a process of its own: what other tests register is no part of the page
    written = tmp_path / "methods.md"
    subprocess.run([sys.executable, "-m", "segkd.cli", "methods", "--write", written], check=True, cwd=tmp_path)
    stale = "docs/methods.md is stale: segkd methods --write docs/methods.md"
    assert written.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), stale


@pytest.mark.parametrize("name", [one for one in available() if method_class(one).__module__.startswith("segkd.")])
def test_every_method_and_key(name, section):
    keys = re.findall(r"^\| `(\w+)` \| .* \| .+ \|$", section[name].partition("### Parameters")[2], re.MULTILINE)
    assert set(method_class(name).Config.model_fields) <= set(keys)
    assert f"| [{name}](#{name}) |" in PAGE.read_text(encoding="utf-8")


def test_facts_that_papers_state(section):
    assert "| `psd` | number, >= 0 | 0.1 | 1000 |" in section["dsd"]  # defaults by preset
    assert "| `count` | iteration or epoch | iteration | refused |" in section["aicsd"]
    assert "`paper` only: ka has no released code" in section["ka"]
    assert "trained with `attention: cbam`" in section["attnfd"]
    assert "Pretraining on the teacher" in section["ka"]
    assert "the labels" in section["cirkd"]
    assert "the labels" not in section["icsd"]
    assert "131,584" in section["cirkd"]  # a projector 256 -> 256 -> 256 with batch norm


def test_help_needs_no_torch():
    code = "import sys; from segkd import cli; assert 'torch' not in sys.modules; assert cli.methods"
    subprocess.run([sys.executable, "-c", code], check=True)
