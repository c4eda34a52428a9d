"""The code behind a step: a changed loss counts for its method alone, a changed comment for nobody."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import segkd
from segkd.config.fingerprint import ROOTS, code_fingerprint
from segkd.errors import ConfigError

STEPS = [
    ("student", "kd"),
    ("student", "ka"),
    ("student", None),
    ("evaluate", None),
    ("prepare", None),
    ("report", None),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(Path(segkd.__file__).parent, tmp_path / "segkd", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def prints(root: Path) -> list[str]:
    code = f"from segkd.config.fingerprint import code_fingerprint as f\nfor a in {STEPS!r}: print(f(*a))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.split()


def changed(root: Path, file: str, old: str, new: str) -> list[bool]:
    before, path = prints(root), root / "segkd" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return [a != b for a, b in zip(before, prints(root), strict=True)]


def test_every_step_has_its_own_code() -> None:
    assert len({code_fingerprint(step) for step in ROOTS}) >= len(ROOTS) - 1  # teacher and student share theirs


@pytest.mark.fault("P1", "a changed comment in the code")
def test_comments_and_docstrings_do_not_count(copy: Path) -> None:
    assert not any(changed(copy, "training/loop.py", '"""The training loop', '# new\n"""Another text: the loop'))


def test_a_changed_loss_counts_for_its_method_alone(copy: Path) -> None:
    assert changed(copy, "methods/kd.py", "\nclass ", "\nCHANGED = 1\n\n\nclass ") == [True] + [False] * 5


def test_a_changed_loop_counts_for_training_alone(copy: Path) -> None:
    assert changed(copy, "training/loop.py", "\ndef fit", "\nCHANGED = 1\n\n\ndef fit") == [True] * 3 + [False] * 3


def test_a_changed_page_counts_for_the_report_alone(copy: Path) -> None:
    page = next((copy / "segkd/report").rglob("*.html"))
    page.write_text(page.read_text() + "<!-- new -->")
    before = [code_fingerprint(*step) for step in STEPS]
    assert [a != b for a, b in zip(before, prints(copy), strict=True)] == [False] * 5 + [True]


def test_unknown_step_and_method() -> None:
    with pytest.raises(ConfigError, match="no step"):
        code_fingerprint("dance")
    with pytest.raises(ConfigError, match="no method"):
        code_fingerprint("student", "dance")
