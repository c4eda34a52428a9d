"""A miniature project in a temporary folder: this checkout's files, a study that takes seconds, git, DVC, Snakemake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
MINIATURE = Path(__file__).parent / "miniature"
NOTHING = "Nothing to be done"


@dataclass(frozen=True)
class Project:
    """A copy of the project with its own git repository."""

    root: Path

    @classmethod
    def copy(cls, root: Path, *, miniature: bool = True) -> Project:
        """The checkout's files, tracked or new, in a repository with one commit; with the miniature study or as is."""
        listed = run(CHECKOUT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
        for name in filter(None, listed.split("\0")):
            if (source := CHECKOUT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, root / name)
        if miniature:
            shutil.copy(MINIATURE / "params.yaml", root / "params.yaml")
            for study in ("miniature.yaml", "tiny.yaml"):
                shutil.copy(MINIATURE / study, root / "workflow/studies" / study)
        project = cls(root)
        project("git", "init", "--quiet", "--initial-branch=main")
        project.commit("project")
        return project

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder, with the project's own segkd."""
        return run(self.root, *words, check=check)

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self("git", "add", "--all")
        self("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", message)

    @contextmanager
    def edited(self, name: str, old: str, new: str) -> Iterator[None]:
        """Replace a text that is there once; afterwards the file is as it was."""
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name}: {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)

    def snakemake(self, *words: str) -> str:
        """What Snakemake says; it must succeed."""
        return self.says("snakemake", "--cores", "all", *words)

    def says(self, *words: str) -> str:
        """Everything that a command writes; it must succeed."""
        done = self(*words)
        return done.stdout + done.stderr

    def plan(self, *words: str) -> set[str]:
        """What Snakemake would run: `rule` or `rule run`; the target rule is left out."""
        return jobs(self.snakemake("--dry-run", *words))

    def dvc_json(self, *words: str) -> Any:
        """Answer of a DVC command that speaks JSON."""
        return json.loads(self("dvc", *words, "--json").stdout)

    def bytes(self, pattern: str) -> dict[str, bytes]:
        """Content of the files that a pattern finds."""
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted(self.root.glob(pattern))}


def jobs(text: str) -> set[str]:
    """Jobs in Snakemake's words, each as `rule` or `rule run`."""
    found = re.findall(r"^(?:local)?rule (\S+):\n((?: {4}.*\n)*)", text, re.MULTILINE)
    runs = [(rule, re.search(r"wildcards: run=(\S+)", body)) for rule, body in found if rule not in {"all", "tiny"}]
    return {f"{rule} {run[1]}" if run else rule for rule, run in runs}


def run(root: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of this interpreter's environment in a folder; what it wrote is in the message where it fails."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # an edit within the same second must not meet the old byte code
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "SEGKD_OFFLINE": "1",  # no host is asked whether it has the papers' data
    }
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=280, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)} returned {done.returncode}\n{done.stdout}\n{done.stderr}{logs(root)}")
    return done


def logs(root: Path) -> str:
    """Ends of the steps' logs, for the message of a failure."""
    paths = [*root.glob("data/logs/**/*.txt"), *root.glob("data/models/**/*.txt")]
    return "\n".join(f"--- {path.relative_to(root)}\n{path.read_text()[-2000:]}" for path in paths)
