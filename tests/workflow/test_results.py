"""Snakemake runs what a change affects and nothing else, and DVC brings results to another clone, but never data.

One miniature project is built by `dvc repro`, pushed, and pulled into a fresh clone; the tests stand in this order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from project import NOTHING, Project, jobs

KD = "digits/small/kd@large/seed0"
PAGES = {"track", "report", "landing"}
AFTER_KD = {f"student {KD}", f"evaluate {KD}"} | PAGES
AFTER_KA = {
    "autoencoder digits/small/ka@large/autoencoder",
    "student digits/small/ka@large/seed0",
    "evaluate digits/small/ka@large/seed0",
} | PAGES
TRAINED = {"teacher digits/large/none/seed0", "student digits/small/none/seed0", f"student {KD}", *AFTER_KA}
SCORED = {f"evaluate digits/{name}/seed0" for name in ("large/none", "small/none", "small/kd@large", "small/ka@large")}
AFTER_DATA = TRAINED | SCORED | {"download", "prepare"}
EVERYTHING = AFTER_DATA | {"check"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A fresh clone without any remote, built by `dvc repro`, with what that said."""
    project = Project.copy(tmp_path_factory.mktemp("first"))
    said = project.says("dvc", "repro")
    return project, said


@pytest.fixture(scope="module")
def built(first: tuple[Project, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The built project, committed, its results pushed to a local remote."""
    project = first[0]
    assert project("git", "status", "--porcelain").stdout.split() == ["??", "dvc.lock"]
    project("dvc", "remote", "add", "--quiet", "--default", "local", str(tmp_path_factory.mktemp("remote")))
    project.commit("results")
    project("dvc", "push")
    return project


@pytest.fixture(scope="module")
def pulled(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone after `dvc pull`."""
    root = tmp_path_factory.mktemp("pulled")
    built("git", "clone", "--quiet", str(built.root), str(root))
    clone = Project(root)
    clone("dvc", "pull")
    return clone


@contextmanager
def stronger_kd(project: Project) -> Iterator[None]:
    with project.edited("params.yaml", "kd: {method: kd}", "kd: {method: kd, weight: 7.0}"):
        yield


def test_dvc_repro_builds_a_fresh_clone_without_a_remote(first: tuple[Project, str]) -> None:
    project, said = first
    assert jobs(said) == EVERYTHING
    assert (project.root / "reports/miniature/index.html").stat().st_size > 1000
    assert said.count("segkd: building") == said.count("segkd: building miniature (listed under `studies`") == 1


def test_nothing_is_left_to_do_after_dvc_repro(built: Project) -> None:
    assert NOTHING in built.snakemake("--dry-run")
    assert built.dvc_json("status") == {}


def test_data_never_reach_cache_or_remote(built: Project) -> None:
    data = built.bytes("data/prepared/**/*.bin") | built.bytes("data/prepared/**/*.npz")
    assert len(data) == 3
    remote = Path(built("dvc", "config", "remote.local.url").stdout.strip())
    stored = {
        path.parent.name + path.name for store in (built.root / ".dvc/cache", remote) for path in store.rglob("*")
    }
    assert not stored & {hashlib.md5(content).hexdigest() for content in data.values()}
    receipt = (built.root / "data/receipts/digits.json").read_bytes()
    assert hashlib.md5(receipt).hexdigest() in stored


def test_nothing_is_left_to_do_in_a_pulled_clone(pulled: Project) -> None:
    assert not (pulled.root / "data/prepared").exists()
    assert not (pulled.root / "data/raw").exists()
    assert NOTHING in pulled.snakemake("--dry-run")
    assert pulled.dvc_json("status") == {}
    assert "didn't change, skipping" in pulled("dvc", "repro").stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("segkd/methods/kd.py", "else 1 / student.numel()", "else 2 / student.numel()", AFTER_KD | {"check"}),
        ("segkd/methods/kd.py", '"""Hyper-parameters of `kd`."""', '"""Of `kd`."""  # a comment', set()),
        ("segkd/data/prepare.py", "\ndef prepare(", "\n# a comment\ndef prepare(", set()),
        ("params.yaml", "ka: {method: ka}", "ka: {method: ka, pretrain_epochs: 2.0}", AFTER_KA | {"check"}),
        ("params.yaml", "size: 32", "size: 36", AFTER_DATA),
        ("params.yaml", "iterations: 2", "iterations: 3", (TRAINED | SCORED)),
        ("params.yaml", "{split: test}", "{split: val}", SCORED | PAGES),
        ("workflow/studies/miniature.yaml", "title: Miniature", "title: Small", PAGES),
    ],
)
def test_a_change_runs_what_it_affects(pulled: Project, file: str, old: str, new: str, expected: set[str]) -> None:
    with pulled.edited(file, old, new):
        assert pulled.plan() == expected


def test_dvc_repro_in_a_pulled_clone_redoes_one_method(pulled: Project, built: Project) -> None:
    others = "data/models/digits/*/none/seed0/*"
    before = pulled.bytes(others)
    with stronger_kd(pulled):
        assert pulled.plan() == AFTER_KD | {"check"}
        assert jobs(pulled.says("dvc", "repro")) == AFTER_KD | {"check"}
        assert NOTHING in pulled.snakemake("--dry-run")
        assert pulled.dvc_json("status") == {}
        assert pulled.dvc_json("params", "diff") == {"params.yaml": {"methods.kd.weight": {"old": None, "new": 7.0}}}
        metrics = pulled.dvc_json("metrics", "diff", "--targets", "reports/miniature/metrics.json")
    assert any(key.startswith("kd.") for key in metrics["reports/miniature/metrics.json"])
    assert not any(key.startswith(("none.", "teacher.")) for key in metrics["reports/miniature/metrics.json"])
    assert pulled.bytes(others) == before
    assert pulled.bytes("data/prepared/digits/*.*") == built.bytes("data/prepared/digits/*.*")


def test_snakemake_redoes_one_method_and_git_with_dvc_brings_it_back(built: Project) -> None:
    before = built.bytes("data/models/**/run.json")
    with stronger_kd(built):
        assert jobs(built.snakemake()) == AFTER_KD | {"check"}
        after = built.bytes("data/models/**/run.json")
        assert {name for name in before if before[name] != after[name]} == {f"data/models/{KD}/run.json"}
    assert built.plan() == AFTER_KD | {"check"}
    built("dvc", "checkout", "--force")
    assert built.bytes("data/models/**/run.json") == before
    assert NOTHING in built.snakemake("--dry-run")


def test_snakemake_builds_one_named_study_in_a_fresh_clone(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    said = project.snakemake("tiny")
    alone = "digits/small/none/seed0"
    assert jobs(said) == {"download", "prepare", "check", f"student {alone}", f"evaluate {alone}"} | PAGES
    assert said.count("segkd: building") == said.count("segkd: building tiny (named on the command line)") == 1
    assert NOTHING in project.snakemake("tiny", "--dry-run")


def test_auto_is_the_embedded_study_and_every_study_where_a_gpu_is_offered(tmp_path: Path) -> None:
    project = Project.copy(tmp_path, miniature=False)
    every = ", ".join(studies(project))
    choices = ((), "quickstart"), (("--resources", "gpu=4"), every), (("--profile", "workflow/profiles/gpu"), every)
    for words, names in choices:
        said = project.snakemake("--dry-run", *words)
        assert said.count("segkd: building") == said.count(f"segkd: building {names} (studies: auto; ") == 1
        assert ("gpu=1" in said) == bool(words)


def studies(project: Project) -> list[str]:
    return sorted(path.stem for path in (project.root / "workflow/studies").glob("*.yaml"))


def test_what_cannot_be_meant_is_refused_by_its_message(tmp_path: Path) -> None:
    project = Project.copy(tmp_path)
    plan = ("snakemake", "--cores", "all", "--dry-run")
    with pytest.raises(AssertionError, match="--config seed would change nothing"):
        project(*plan, "--config", "seed=1")
    with (
        project.edited("params.yaml", "studies: [miniature]", "studies: [miniatur]"),
        pytest.raises(AssertionError, match="did you mean 'miniature'"),
    ):
        project(*plan)


def test_lint_finds_nothing(tmp_path: Path) -> None:
    assert "good condition" in Project.copy(tmp_path).snakemake("--lint")
