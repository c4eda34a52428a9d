"""`segkd plan`: what studies consist of and cost, before anything starts; and a dry run over all of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from project import Project, jobs
from tiny_project import TINY
from torch import nn
from typer.testing import CliRunner

from segkd.availability.reach import OFFLINE
from segkd.cli import app
from segkd.config.load import load_params, load_study
from segkd.config.params import MethodEntry, Params
from segkd.config.runs import RELEASED, Run, resolve, study_runs
from segkd.data.footprint import facts
from segkd.evaluation.cost import flops as counted
from segkd.files import write_json
from segkd.networks.build import build
from segkd.overview import flops
from segkd.overview.as_json import as_json
from segkd.overview.cost import Cost, Costs, Machine, length
from segkd.overview.show import text
from segkd.overview.study import Overview, overview
from segkd.plan import study_names

PARAMS = Params.model_validate(TINY)
SMALL, LARGE = PARAMS.networks["small"], PARAMS.networks["large"]
CLASSES, SIZE = 11, (32, 32)
KD = Run("tiny", "small", "kd", "large")
CHECKOUT = Path(__file__).resolve().parents[2]


def changed(**recipe: Any) -> Params:
    values = copy.deepcopy(TINY)
    values["recipes"]["tiny"] |= recipe
    return Params.model_validate(
        {**values, "recipes": {"tiny": {k: v for k, v in values["recipes"]["tiny"].items() if v}}}
    )


@pytest.mark.parametrize("name", ["pspnet-resnet18", "deeplabv3plus-mobilenetv2", "segformer-mit-b0"])
def test_shapes_alone_count_as_the_network_with_weights_does(name: str) -> None:
    config = load_params(CHECKOUT / "params.yaml").networks[name]
    assert flops.forward(config, 19, (64, 96)) == counted(build(config, 19), (64, 96))


def test_a_convolution_costs_two_operations_a_weight_and_position() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1))
    module[2].requires_grad_(False)
    assert flops.per_position(module) == 3 * 2 * (3 * 5 * 9) + 2 * (5 * 2)


def test_a_teacher_adds_its_forward_pass_and_the_method_its_convolutions() -> None:
    teacher = flops.forward(LARGE, CLASSES, SIZE)
    pair = [flops.channels(one, CLASSES).embedding for one in (SMALL, LARGE)]
    connector = 3 * 2 * pair[0].channels * pair[1].channels * (32 // pair[0].stride) ** 2
    assert flops.teaching(SMALL, LARGE, MethodEntry(method="kd"), CLASSES, SIZE) == teacher
    assert flops.teaching(SMALL, LARGE, MethodEntry(method="fitnet"), CLASSES, SIZE) == teacher + connector


def test_the_cost_of_a_run_is_that_of_its_images() -> None:
    known = facts(PARAMS.datasets["digits"])
    small, large = (flops.forward(one, known.classes, SIZE) for one in (SMALL, LARGE))
    cost = Costs(PARAMS).of(KD)
    assert cost.training == 6 * 4 * (3 * small + large)
    assert cost.scoring == (2 * 4 + 2 * 6) * small  # two looks at 4 images; 6 images by last and by best weights
    assert cost.weights == 2 * 4 * sum(one.numel() for one in build(SMALL, known.classes).state_dict().values())
    assert cost.state > 2 * cost.weights
    unselected = Costs(changed(evaluation={"split": "test"})).of(KD)
    assert (unselected.scoring, unselected.weights) == (6 * small, cost.weights // 2)


def test_seeds_cost_the_same_and_released_weights_are_only_scored() -> None:
    costs = Costs(PARAMS)
    assert costs.of(KD) == costs.of(Run("tiny", "small", "kd", "large", 5))
    released = costs.of(Run("tiny", "large", RELEASED))
    assert (released.training, released.state) == (0, 0)
    assert released.scoring == 6 * flops.forward(LARGE, facts(PARAMS.datasets["digits"]).classes, SIZE)


def test_pretraining_costs_its_own_epochs() -> None:
    cost = Costs(PARAMS).of(Run("tiny", "small", "ka", "large", None))
    image, epochs = flops.pretraining(
        SMALL, LARGE, PARAMS.methods["ka"], facts(PARAMS.datasets["digits"]).classes, SIZE
    )
    assert epochs == 1.0
    assert cost.training == (16 // 4) * 4 * image > 16 * flops.forward(LARGE, CLASSES, SIZE)
    assert cost.scoring == 0


def test_epochs_are_whole_batches() -> None:
    params = changed(iterations=None, epochs=3, batch=5)
    assert length(params.recipes["tiny"], facts(params.datasets["digits"])) == 3 * (16 // 5)


def test_hours_are_operations_over_what_is_reached() -> None:
    machine = Machine(tflops=100, utilisation=0.5)
    assert Cost(3600 * 50e12, 0, 0, 0).hours(machine) == pytest.approx(1)
    assert Cost(0, 3600 * 50e12, 0, 0).hours(machine) == pytest.approx(2)  # float32: half the peak


@pytest.mark.parametrize(
    ("kind", "images", "prepared"),
    [
        ("cityscapes", 3475, 3475 * 1024 * 2048 * 4),
        ("voc-aug", 12031, 12031 * 375 * 500 * 4),
        ("camvid", 701, 484_531_200),
    ],
)
def test_data_take_four_bytes_a_pixel(kind: str, images: int, prepared: int) -> None:
    values = {**TINY["datasets"], "one": {"kind": kind}}
    known = facts(Params.model_validate({**TINY, "datasets": values}).datasets["one"])
    assert (sum(known.images.values()), known.prepared) == (images, prepared)
    assert known.disk == known.prepared + (known.raw or 0) > known.prepared


STUDIES = {
    "first": "{method: none}, {method: kd}, {method: none, recipe: streets}, {method: none, cannot_run: a secret}",
    "second": "{method: kd, seeds: [0, 1]}, {method: ka}",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies that share a student and its teacher; the first also needs Cityscapes; one run is done."""
    monkeypatch.setenv(OFFLINE, "1")
    monkeypatch.delenv("CITYSCAPES_USERNAME", raising=False)
    monkeypatch.chdir(tmp_path)
    values = copy.deepcopy(TINY)
    values["datasets"]["cityscapes"] = {"kind": "cityscapes"}
    values["recipes"]["streets"] = {**values["recipes"]["tiny"], "dataset": "cityscapes", "evaluation": {}}
    Path("params.yaml").write_text(json.dumps(values))
    for name, cells in STUDIES.items():
        Path("workflow/studies").mkdir(parents=True, exist_ok=True)
        defaults = "{recipe: tiny, teacher: large, student: small, seeds: [0]}"
        tables = f"[{{name: t, title: Table, cells: [{cells}]}}]"
        Path(f"workflow/studies/{name}.yaml").write_text(f"title: S\ndefaults: {defaults}\ntables: {tables}\n")
    run = Run("tiny", "small")
    for name in ("run.json", "evaluation.json"):
        write_json(run.folder / name, {"config_sha256": resolve(load_params(), run).sha256()})
    return tmp_path


def columns(plan: str, study: str) -> list[str]:
    return next(line for line in plan.splitlines() if line.startswith(f"{study} ")).split()[1:]


def test_a_plan_counts_cells_and_runs_done_shared_and_impossible(project: Path) -> None:
    plan = text(overview(), details=False)
    # cells, runs (teacher, two students alone, kd), done, cannot be run, shared
    assert columns(plan, "first")[:5] == ["4", "4", "1", "1", "2"]
    assert columns(plan, "second")[:5] == ["2", "5", "0", "0", "2"]
    assert columns(plan, "together")[:4] == ["6", "7", "1", "1"]
    assert "data set cityscapes: no account" in plan
    assert "for:   first" in plan


def test_a_named_study_is_shown_with_every_run_and_its_state(project: Path) -> None:
    plan = text(overview(["first"]), details=True)
    lines = {line.split("  ")[0]: " ".join(line.split()[1:-1]) for line in plan.splitlines() if line.startswith("t")}
    assert lines["tiny/small/none/seed0"] == "done"
    assert lines["tiny/small/kd@large/seed0"] == lines["tiny/large/none/seed0"] == "to do"
    assert "streets/small/none/seed0   cannot be run: data set cityscapes" in plan
    assert "none: no runs              a secret" in plan
    assert "together" not in plan
    plan = text(overview(["second"]), details=True)
    assert "tiny/small/kd@large/seed{0,1}" in plan
    assert "tiny/small/ka@large/autoencoder" in plan


def test_hours_add_up_each_run_once(project: Path) -> None:
    plan = as_json(overview(machine=Machine(tflops=1e-3, utilisation=0.5)))
    first, second = plan["studies"]
    shared = sum(first["runs"][name]["gpu_hours"] for name in first["runs"].keys() & second["runs"].keys())
    assert plan["together"]["gpu_hours"] == pytest.approx(first["gpu_hours"] + second["gpu_hours"] - shared)
    done, away = (first["runs"][f"{recipe}/small/none/seed0"] for recipe in ("tiny", "streets"))
    left = first["gpu_hours"] - done["gpu_hours"] - away["gpu_hours"]
    assert first["gpu_hours_to_do"] == pytest.approx(left)
    assert (done["state"], away["state"]) == ("done", "cannot be run")
    assert away["reason"].startswith("data set cityscapes: no account")


def test_what_cannot_be_counted_is_said(project: Path) -> None:
    path = Path("params.yaml")
    values = json.loads(path.read_text())
    values["datasets"]["digits"] = {"kind": "folder", "root": "nowhere"}
    path.write_text(json.dumps(values))
    plan = text(overview(["second"]), details=False)
    assert columns(plan, "second")[3] == "5"
    assert "0.0 + ?" in plan
    assert "The folder of a data set is missing." in plan


def test_the_verb_prints_the_same_as_text_and_as_json(project: Path) -> None:
    shown = CliRunner().invoke(app, ["plan", "--tflops", "100", "--utilisation", "0.5"])
    assert shown.exit_code == 0
    assert "on one GPU that reaches 50 % (--utilisation) of 100 TFLOP/s" in shown.output
    content = json.loads(CliRunner().invoke(app, ["plan", "second", "--json"]).output)
    assert [study["name"] for study in content["studies"]] == ["second"]
    assert content["machine"] == {"tflops": 312.0, "utilisation": 0.25}
    assert not (project / "data/receipts").exists()


def test_a_terminal_gets_tables_that_fit_it(project: Path) -> None:
    found: Overview = overview()
    shown = text(found, details=True, width=100)
    assert "┃" in shown
    assert "tiny/small/kd@large" in shown


def test_no_memory_is_taken_for_a_method() -> None:
    method = flops.method_of(SMALL, LARGE, MethodEntry(method="cirkd"), CLASSES)
    assert {one.device for one in method.state_dict().values()} == {torch.device("meta")}
    assert flops.Shape.of(method).numbers > 1e6


def test_a_dry_run_plans_every_run_behind_every_published_number(tmp_path: Path) -> None:
    project = Project.copy(tmp_path, miniature=False)
    said = project.snakemake("--dry-run", "--resources", "gpu=4")
    params, folder = load_params(project.root / "params.yaml"), project.root / "workflow/studies"
    runs = {run for name in study_names(folder) for run in study_runs(params, load_study(name, folder))}
    wanted = {run.name for run in runs if run.method != RELEASED}
    planned = jobs(said)
    assert {job.partition(" ")[2] for job in planned if job.startswith("evaluate ")} == wanted
    trained = {job.partition(" ")[2] for job in planned if job.startswith(("student ", "teacher "))}
    assert trained == wanted
    assert "Not to be had on this machine:" in said
