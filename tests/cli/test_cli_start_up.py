"""The command line answers before it imports what computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_project import TINY

HEAVY = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "mlflow", "PIL", "rich", "jinja2"}
PROGRAM = """
import sys
from segkd.cli import main
try:
    main()
finally:
    print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(folder: Path, *words: str) -> tuple[set[str], str, int]:
    """(top-level modules, what was said, exit code) of `segkd words...`."""
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    *_, last = done.stdout.splitlines()
    return set(last.split()[1:]), done.stdout + done.stderr, done.returncode


def test_help_needs_neither_configuration_nor_libraries(tmp_path: Path) -> None:
    modules, said, code = imported(tmp_path, "--help")
    assert code == 0 and "student" in said
    assert not modules & (HEAVY | {"pydantic", "yaml"})


@pytest.mark.parametrize(
    "words",
    [
        ("student", "nowhere/small/none/seed0"),
        ("autoencoder", "nowhere/small/ka@large/autoencoder"),
        ("evaluate", "nowhere/small/none/seed0"),
        ("prepare", "nowhere"),
        ("report", "nowhere"),
        ("import-checkpoint", "file", "--from", "cirkd", "--network", "small", "--recipe", "nowhere"),
        ("score", "--labels", "a", "--predictions", "b", "--dataset", "nowhere"),
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_does_not_exist_is_refused_before_torch_is_imported(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(TINY))
    modules, said, code = imported(tmp_path, *words)
    assert code == 2 and "nowhere" in said
    assert not modules & HEAVY
