"""Snakemake killed, a seed that fails, a DVC remote that is gone: what is there stays, the rest is made or named.

One miniature project goes through the tests in their order, as a user's would.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from project import Project, jobs

pytestmark = pytest.mark.slow  # whole workflows: minutes

RUN = "data/models/digits/small/none/seed{}"
SCORED = f"{RUN.format(0)}/evaluation.json"
STUDY = """
title: Seeds
defaults: {recipe: digits, student: small, seeds: [0, 1, 2]}
tables:
  - {name: methods, title: A student alone, cells: [{method: none}]}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose DVC remote cannot be reached, with a study of three seeds."""
    made = Project.copy(tmp_path_factory.mktemp("faults"))
    (made.root / "workflow/studies/seeds.yaml").write_text(STUDY)
    made("dvc", "remote", "add", "--quiet", "--default", "gone", "/dev/null/gone")
    made.commit("seeds")
    return made


def result(project: Project) -> tuple[str, object, object]:
    """Hash of the first seed's weights, and its scores."""
    record, found = (
        json.loads((project.root / RUN.format(0) / f"{name}.json").read_text()) for name in ("run", "evaluation")
    )
    return record["weights"]["sha256"], found["scores"], found["confusion"]


def kill_when(project: Project, path: Path, *words: str) -> None:
    """Start Snakemake, and kill it with all that it started, without a warning, as soon as a file is there."""
    environment = os.environ | {"PYTHONPATH": str(project.root), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(
        ["snakemake", *words], cwd=project.root, env=environment, start_new_session=True, **quiet
    )
    deadline = time.monotonic() + 120
    while not path.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.poll() is None and path.exists(), f"nothing to kill: {running.poll()}"
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.fault("P2", "Snakemake and its jobs killed (SIGKILL) in a training, then started again")
def test_killed_and_started_again_it_ends_in_the_same_results(project: Project) -> None:
    folder = project.root / RUN.format(0)
    kill_when(project, folder / "metrics.jsonl", "--cores", "1", SCORED)
    assert not (folder / "evaluation.json").exists()
    assert "Directory cannot be locked" in project("snakemake", "--cores", "1", SCORED, check=False).stderr
    project("snakemake", "--unlock", SCORED)
    said = project.snakemake("--rerun-incomplete", SCORED)
    assert jobs(said) == {"student digits/small/none/seed0", "evaluate digits/small/none/seed0"}
    killed = result(project)
    shutil.rmtree(folder)
    project.snakemake(SCORED)
    assert result(project) == killed


@pytest.mark.fault("P3", "one seed of three fails under --keep-going: the report says n = 2 and why")
def test_a_seed_that_fails_leaves_a_report_on_the_others(project: Project) -> None:
    folder = project.root / RUN.format(2) / "state"
    folder.mkdir(parents=True)
    (folder / "holder.txt").write_text("process 4711 on a host elsewhere\n")
    with FileLock(folder / "lock"):
        done = project("snakemake", "--cores", "all", "--keep-going", "seeds", check=False)
    assert done.returncode == 1
    assert "some runs of seeds failed; reports/seeds/index.html says which and why" in done.stderr
    assert json.loads((project.root / "reports/seeds/metrics.json").read_text())["none.n"] == 2
    page = (project.root / "reports/seeds/index.html").read_text()
    assert "seed 2: failed: LockedError: Another process is training this run." in page
    assert "process 4711 on a host elsewhere" in page
    assert {"student digits/small/none/seed2", "report"} <= project.plan("seeds")  # it is tried again


@pytest.mark.fault("P5", "a DVC remote that cannot be reached")
def test_a_dvc_remote_that_is_gone_takes_no_result_along(project: Project) -> None:
    before = project.bytes("data/models/**/*.*")
    for words in (("push", "data/models"), ("pull", "data/models"), ("fetch",)):
        project("dvc", *words, check=False)
        assert project.bytes("data/models/**/*.*") == before
    assert len(before) > 20
