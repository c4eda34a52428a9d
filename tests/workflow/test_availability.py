"""What a machine cannot have is found out first, said in one list, and left out; everything else goes on."""

from __future__ import annotations

import copy
import json
import socket
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from project import NOTHING, Project, jobs
from tiny_project import TINY

from segkd import plan
from segkd.availability import obstacles, reach
from segkd.availability.decision import MISSING, Ledger, Missing, decide, find, read, record
from segkd.availability.needed import Thing, needed
from segkd.config.params import Params
from segkd.config.runs import Run, resolve
from segkd.config.study import Study
from segkd.errors import DataError
from segkd.files import write_json

AWAY = Run("streets", "small", "kd", "large")
RELEASED = Run("streets", "large", "as-released")
DATA, WEIGHTS = Thing("data", "cityscapes"), Thing("imagenet", "imagenet-resnet18")
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def params() -> Params:
    """The tiny project with Cityscapes under the recipe `streets`, and ImageNet weights for the teacher."""
    values: dict[str, Any] = copy.deepcopy(TINY)
    values["datasets"] |= {"cityscapes": {"kind": "cityscapes"}, "voc": {"kind": "voc"}}
    values["datasets"]["own"] = {"kind": "folder", "root": "own"}
    for recipe, dataset in (("streets", "cityscapes"), ("objects", "voc"), ("mine", "own")):
        values["recipes"][recipe] = {**values["recipes"]["tiny"], "dataset": dataset}
        values["recipes"][recipe]["evaluation"] = {"split": "val"}
    values["networks"]["large"] |= {"width": 1.0, "stem": "conv7", "pretrained": "imagenet-resnet18"}
    return Params.model_validate(values)


def study(*cells: dict[str, Any]) -> Study:
    defaults = {"recipe": "streets", "teacher": "large", "student": "small", "seeds": [0]}
    tables = [{"name": "t", "title": "T", "cells": list(cells)}]
    return Study.model_validate({"title": "S", "defaults": defaults, "tables": tables})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Set what the machine has: an account, answering hosts, weights, free bytes; returns the project's folder."""

    def set_up(*, account: bool = True, online: bool = True, weights: bool = True, free: float = 1e15) -> Path:
        for name in ("CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD"):
            monkeypatch.setenv(name, "x" if account else "")
        monkeypatch.delenv(reach.OFFLINE, raising=False)
        monkeypatch.setattr(reach, "_known", {})
        silent = "" if online else "does not answer"
        monkeypatch.setattr(reach, "_fault", lambda host, _: silent and f"{host.partition('://')[2]} {silent}")
        monkeypatch.setattr("segkd.networks.catalogue.available", lambda _: "" if weights else "missing")
        monkeypatch.setattr(obstacles.shutil, "disk_usage", lambda _: USAGE(0, 0, free))
        return tmp_path

    return set_up


class Answers(BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A server that has nothing, its address and what it was asked."""
    monkeypatch.setattr(reach, "_known", {})
    monkeypatch.delenv(reach.OFFLINE, raising=False)
    asked: list[str] = []
    one = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answers,), {"asked": asked}))
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{one.server_port}", asked
    one.shutdown()
    one.server_close()


def test_a_host_that_refuses_answers_and_is_asked_once(server: tuple[str, list[str]]) -> None:
    address, asked = server
    assert reach.unreachable([f"{address}/a.zip", f"{address}/b.zip"]) == {}
    assert reach.unreachable([f"{address}/c.zip"]) == {}
    assert asked == ["/"]


def test_hosts_that_are_closed_or_silent_do_not_answer_and_do_not_keep_anyone_waiting(
    server: tuple[str, list[str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        names = [f"127.0.0.1:{one.getsockname()[1]}" for one in (silent, closed)]
        closed.close()
        found = reach.unreachable([server[0], *(f"http://{name}/file" for name in names)], seconds=0.3)
    assert found == {f"http://{name}/file": f"{name} does not answer" for name in names}


def test_nothing_is_asked_offline(server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(reach.OFFLINE, "1")
    assert list(reach.unreachable([server[0]]).values()) == ["SEGKD_OFFLINE is set, so no host was asked"]
    assert reach.unreachable(["file:///data/a.zip"]) == {}
    assert server[1] == []


def finish(params: Params, run: Run, root: Path, *names: str) -> None:
    for name in names:
        write_json(root / run.folder / name, {"config_sha256": resolve(params, run).sha256()})


def test_a_student_needs_what_its_teacher_needs_until_that_is_trained(params: Params, tmp_path: Path) -> None:
    teacher = Run("streets", "large")
    assert needed(params, AWAY, tmp_path) == needed(params, teacher, tmp_path) == {DATA, WEIGHTS}
    finish(params, teacher, tmp_path, "run.json")
    assert needed(params, AWAY, tmp_path) == needed(params, teacher, tmp_path) == {DATA}
    finish(params, AWAY, tmp_path, "run.json", "evaluation.json")
    assert needed(params, AWAY, tmp_path) == set()


def test_a_run_of_another_configuration_is_not_done(params: Params, tmp_path: Path) -> None:
    finish(params, AWAY, tmp_path, "run.json", "evaluation.json")
    changed = params.model_copy(update={"networks": params.networks | {"small": params.networks["large"]}})
    assert needed(changed, AWAY, tmp_path) == {DATA, WEIGHTS}


def test_released_weights_are_imported_then_scored(params: Params, tmp_path: Path) -> None:
    assert needed(params, RELEASED, tmp_path) == {DATA, Thing("released", RELEASED.name)}
    write_json(tmp_path / RELEASED.folder / "run.json", {})
    assert needed(params, RELEASED, tmp_path) == {DATA}


def found(params: Params, thing: Thing, root: Path) -> str:
    one = obstacles.obstacles(params, [thing], {}, root).get(thing)
    return one.why if one else ""


def test_a_machine_that_has_everything_lacks_nothing(params: Params, machine: Callable[..., Path]) -> None:
    assert obstacles.obstacles(params, [DATA, WEIGHTS, Thing("data", "digits")], {}, machine()) == {}


def test_each_obstacle_is_named_with_what_to_do(params: Params, machine: Callable[..., Path]) -> None:
    root = machine(account=False, online=False, free=1e9)
    one = obstacles.obstacles(params, [DATA], {}, root)[DATA]
    assert one.why == (
        "no account (CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD are not set); www.cityscapes-dataset.com does not "
        "answer; it needs about 49 GB of disk, more than is free"
    )
    assert one.to_do.startswith("free 48 GB, or make data/ a link to a folder on a larger disk; then register at https")
    assert one.to_do.endswith("segkd download cityscapes --from DIR")


def test_weights_are_fetched_or_brought_by_hand(params: Params, machine: Callable[..., Path]) -> None:
    assert found(params, WEIGHTS, machine(weights=False)) == ""
    assert found(params, WEIGHTS, machine(weights=False, online=False)) == "download.pytorch.org does not answer"
    by_hand = Thing("imagenet", "imagenet-resnet101-deep")
    assert found(params, by_hand, machine(weights=False)) == "they can only be had by hand"


def test_a_folder_of_ones_own_is_there_or_not(params: Params, machine: Callable[..., Path]) -> None:
    own, root = Thing("data", "own"), machine(online=False)
    assert found(params, own, root) == "own/dataset.yaml is not there"
    (root / "own").mkdir()
    (root / "own/dataset.yaml").write_text("classes: [a, b]")
    assert found(params, own, root) == ""


def test_a_folder_that_is_not_there_can_be_planned(params: Params) -> None:
    assert plan.data_slice(params.datasets["own"], "download")["data"] == "data: not there"


@pytest.mark.parametrize(
    "files",
    [
        ["data/raw/voc/manifest.json"],
        ["data/raw/voc/.archives/VOCtrainval_11-May-2012.tar"],
        ["data/prepared/voc/manifest.json", "data/receipts/voc.json"],
    ],
)
def test_what_is_here_already_needs_no_network(params: Params, machine: Callable[..., Path], files: list[str]) -> None:
    thing, root = Thing("data", "voc"), machine(online=False)
    assert found(params, thing, root) == "host.robots.ox.ac.uk does not answer"
    for name in files:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("{}")
    assert found(params, thing, root) == ""


def test_a_receipt_alone_is_no_data(params: Params, machine: Callable[..., Path]) -> None:
    root = machine(online=False)
    (root / "data/receipts").mkdir(parents=True)
    (root / "data/receipts/voc.json").write_text("{}")
    assert found(params, Thing("data", "voc"), root) == "host.robots.ox.ac.uk does not answer"


def test_what_fits_on_the_disk_is_had(params: Params, machine: Callable[..., Path]) -> None:
    things = [DATA, Thing("data", "voc")]
    assert obstacles.obstacles(params, things, {}, machine(free=50e9)).keys() == {DATA}
    assert obstacles.obstacles(params, things, {}, machine(free=60e9)) == {}


def test_only_what_lacks_something_is_left_out(params: Params, machine: Callable[..., Path]) -> None:
    here = study({"method": "none", "recipe": "tiny"}, {"method": "none"}, {"method": "kd"})
    there = study({"method": "none"})
    missing = find(params, {"here": here, "there": there}, machine(weights=False, online=False))
    alone, teacher = "streets/small/none/seed0", "streets/large/none/seed0"
    assert missing.runs.keys() == {alone, teacher, AWAY.name}
    assert missing.runs[alone] == "data set cityscapes: www.cityscapes-dataset.com does not answer"
    assert missing.runs[AWAY.name] == missing.runs[teacher] != missing.runs[alone]
    assert [(need.what, need.studies) for need in missing.needs] == [
        ("data set cityscapes", ("here", "there")),
        ("ImageNet weights imagenet-resnet18", ("here",)),
    ]


def test_reasons_do_not_change_with_what_is_free(params: Params, machine: Callable[..., Path]) -> None:
    one, other = (find(params, {"s": study({"method": "none"})}, machine(free=free)) for free in (1e9, 2e9))
    assert one.runs == other.runs
    assert one.needs[0].to_do != other.needs[0].to_do


def test_the_embedded_data_are_never_missing(params: Params, machine: Callable[..., Path]) -> None:
    root = machine(account=False, online=False, weights=False, free=0)
    embedded = study({"method": "none", "recipe": "tiny"}, {"method": "kd", "recipe": "tiny", "teacher": "small"})
    decision = decide(params, {"s": embedded}, "run", root)
    assert (decision.found, decision.message) == (Missing(), "")
    record(decision, root)
    assert not (root / "data").exists()


def test_a_dry_run_plans_all_but_released_weights(params: Params, machine: Callable[..., Path]) -> None:
    checkpoint = {"method": "none", "student": "large", "checkpoint": {"layout": "cirkd", "where": "elsewhere"}}
    studies, root = {"s": study({"method": "none"}, checkpoint)}, machine(online=False)
    dry, run = (decide(params, studies, occasion, root) for occasion in ("dry run", "run"))
    assert list(dry.left_out) == [RELEASED.name]
    assert list(run.left_out) == [RELEASED.name, "streets/small/none/seed0"]
    assert "segkd import-checkpoint FILE --from cirkd --network large --recipe streets" in dry.message
    assert "2 runs would be left out" in dry.message
    write_json(root / RELEASED.folder / "run.json", {})
    assert decide(params, studies, "dry run", root).left_out == {}


def test_what_was_decided_is_recorded_for_jobs_beside_other_studies(
    params: Params, machine: Callable[..., Path]
) -> None:
    root = machine(online=False)
    for name in "ab":
        (root / "workflow/studies").mkdir(parents=True, exist_ok=True)
        (root / f"workflow/studies/{name}.yaml").write_text("")
    first, second = study({"method": "none"}), study({"method": "none"}, {"method": "none", "recipe": "objects"})
    record(decide(params, {"a": first}, "run", root), root)
    record(decide(params, {"b": second}, "run", root), root)
    recorded = read(root)
    assert recorded.runs.keys() == {"streets/small/none/seed0", "objects/small/none/seed0"}
    assert [need.studies for need in recorded.needs] == [("a", "b"), ("b",)]
    assert decide(params, {"b": second}, "other", root).left_out == recorded.runs
    assert json.loads((root / MISSING).read_text())["format"] == 1
    written = (root / MISSING).stat().st_mtime_ns
    record(decide(params, {"b": second}, "run", root), root)
    assert (root / MISSING).stat().st_mtime_ns == written
    machine()
    record(decide(params, {"a": first, "b": second}, "run", root), root)
    assert read(root) == Missing()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / MISSING).parent.mkdir(parents=True)
    (tmp_path / MISSING).write_text('{"format": 2}')
    with pytest.raises(DataError, match="another format"):
        read(tmp_path)


def test_the_list_is_said_once(params: Params, machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine(online=False))
    monkeypatch.setattr("segkd.availability.decision.load_study", lambda _: study({"method": "none"}))
    said: list[str] = []
    ledger = Ledger(params, ("a", "b"), lambda: "run", said.append)
    assert ledger.left_out("a") == ledger.left_out("b") != {}
    assert len(said) == 1
    assert "for:   a, b" in said[0]
    ledger.record()
    jobs_ = Ledger(params, ("a", "b"), lambda: "other", said.append)
    assert jobs_.left_out("a") == ledger.left_out("a")
    assert len(said) == 1


AWAY_STUDY = """title: Away
defaults: {recipe: streets, teacher: large, student: small, seeds: [0]}
tables: [{name: t, title: T, cells: [{method: none}, {method: kd}, %s]}]
"""
IMPORTED = "{method: none, student: large, checkpoint: {layout: cirkd, where: elsewhere}}"
PAGES = ("reports/away/index.html", "reports/tiny/index.html")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two studies, one of which needs Cityscapes, on a machine without network that offers a GPU."""
    project = Project.copy(tmp_path_factory.mktemp("offline"))
    for path in (project.root / "workflow/studies").glob("*.yaml"):
        if path.stem != "tiny":
            path.unlink()
    (project.root / "workflow/studies/away.yaml").write_text(AWAY_STUDY % IMPORTED)
    path = project.root / "params.yaml"
    text = path.read_text().replace("studies: [miniature]", "studies: auto")
    text = text.replace("networks:\n", "  cityscapes: {kind: cityscapes}\nnetworks:\n", 1)
    recipe = text[text.index("  digits:\n    dataset") : text.index("methods:\n")]
    streets = recipe.replace("  digits:\n", "  streets:\n").replace("dataset: digits", "dataset: cityscapes")
    path.write_text(text.replace("methods:\n", streets.replace("split: test", "split: val") + "methods:\n", 1))
    return project


def test_a_study_without_data_stops_alone_and_its_page_says_why(offline: Project) -> None:
    said = offline.snakemake(*PAGES, "--resources", "gpu=1")
    assert said.count("Not to be had on this machine:") == 1
    alone = "digits/small/none/seed0"
    assert jobs(said) == {"download", "prepare", f"student {alone}", f"evaluate {alone}", "track", "report"}
    for page in PAGES:
        assert ("CITYSCAPES_USERNAME" in (offline.root / page).read_text()) == ("away" in page)
    assert json.loads((offline.root / MISSING).read_text())["needs"][0]["studies"] == ["away"]
    assert NOTHING in offline.snakemake(*PAGES, "--resources", "gpu=1")


def test_a_dry_run_plans_what_is_missing_and_warns(offline: Project) -> None:
    said = offline.snakemake("--resources", "gpu=1", "--dry-run")
    assert "4 runs would be left out" in said
    runs = ("streets/large/none", "streets/small/none", "streets/small/kd@large")
    assert {f"evaluate {run}/seed0" for run in runs} <= jobs(said)
    assert not any("as-released" in job for job in jobs(said))


def test_imported_weights_are_scored_and_never_trained(offline: Project) -> None:
    imported = offline.root / "data/models/streets/large/as-released/seed0/run.json"
    write_json(imported, {})
    planned = offline.plan("--resources", "gpu=1", "--forceall")
    assert "evaluate streets/large/as-released/seed0" in planned
    assert not planned & {f"{rule} streets/large/as-released/seed0" for rule in ("student", "teacher")}
