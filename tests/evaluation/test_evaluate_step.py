from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_fakes import labels, paint, recipe, write_prepared

from segkd.config.runs import Resolved, Run, describe
from segkd.data.prepared import Prepared
from segkd.errors import CheckpointError, DataError, DriftError
from segkd.evaluation.evaluate import evaluate_network
from segkd.evaluation.per_image import PerImage
from segkd.evaluation.step import evaluate, summarise
from segkd.files import read_json, write_json
from segkd.networks.build import build
from segkd.networks.weights import write

CLASSES = 4
SIZES = [(24, 32), (24, 32), (17, 29)]
RUN = Run("quick", "small")
NETWORK = {"head": "fcn", "backbone": "resnet18", "stem": "conv3", "width": 0.125, "head_channels": 32}
VARY = {"wall_seconds", "cost"}


def resolved(evaluation: dict | None = None, **changes) -> Resolved:
    fields = {
        "run": RUN.name,
        "recipe": recipe(evaluation, **changes),
        "dataset": {"kind": "folder", "root": "somewhere"},
        "network": NETWORK,
        "method": {"method": "none"},
        "seed": 0,
    }
    return Resolved.model_validate(fields)


def finished_run(root: Path, configuration: Resolved, *, best: bool = False) -> dict:
    """A prepared data set and the folder of a run on it, as training leaves it; returns run.json."""
    truth = labels(8, SIZES, CLASSES)
    prepared = write_prepared(root / "data/prepared/tiny", [paint(label) for label in truth], truth, CLASSES)
    folder = root / RUN.folder
    torch.manual_seed(1)
    sha = write(folder / "weights.safetensors", build(configuration.network, CLASSES).state_dict())
    record = {
        "format": 1,
        "run": RUN.name,
        "step": "student",
        "config": describe(configuration),
        "data": {"name": "tiny", "sha256": prepared.sha256},
        "weights": {"file": "weights.safetensors", "sha256": sha},
        "best": None,
    }
    if best:
        torch.manual_seed(2)
        sha = write(folder / "best.safetensors", build(configuration.network, CLASSES).state_dict())
        record["best"] = {"iteration": 30, "miou": 0.5, "file": "best.safetensors", "sha256": sha}
    write_json(folder / "run.json", record)
    return record


@pytest.fixture
def root(tmp_path):
    finished_run(tmp_path, resolved())
    return tmp_path


def score_of(root: Path, seed: int, configuration: Resolved):

    torch.manual_seed(seed)
    network = build(configuration.network, CLASSES)
    split = Prepared(root / "data/prepared/tiny").split("val")
    return evaluate_network(network, split, configuration.recipe, CLASSES, "cpu")


def test_files_hold_what_the_contract_names(root):
    path = evaluate(RUN, resolved(), root)
    assert path == root / RUN.folder / "evaluation.json"
    found, record = read_json(path), read_json(root / RUN.folder / "run.json")
    direct = score_of(root, 1, resolved())
    assert found["scores"] == direct.summary()
    assert found["confusion"] == direct.confusion.tolist()
    assert found["per_class"] == direct.per_class([f"class{c}" for c in range(CLASSES)])
    assert [set(entry) for entry in found["per_class"]] == [{"name", "iou", "accuracy", "boundary_iou", "pixels"}] * 4
    assert found["weights_sha256"] == record["weights"]["sha256"]
    assert found["data_sha256"] == record["data"]["sha256"]
    assert (found["run"], found["split"], found["images"], found["best"]) == (RUN.name, "val", 8, None)
    assert found["protocol"] == {"short_side": None, "input_scale": 1.0, "absent_classes": "nan"}
    assert set(found["scores"]) == {
        *("miou", "pixel_accuracy", "class_accuracy", "frequency_weighted_iou", "boundary_iou", "ece", "absent_classes")
    }
    assert set(found) == {
        *("format", "run", "split", "protocol", "classes", "images", "weights_sha256", "data_sha256", "scores"),
        *("per_class", "confusion", "best", "cost", "wall_seconds"),
    }
    assert found["cost"]["input"] == [3, 24, 32]
    assert found["cost"]["flops"] == 2 * found["cost"]["macs"] > 0


def test_sums_and_samples_lie_beside_it(root):
    folder = evaluate(RUN, resolved(), root).parent
    sums = PerImage.load(folder / "per_image.npz")
    found = read_json(folder / "evaluation.json")
    assert sums.ids == tuple(f"val-{index}" for index in range(8))
    assert sums.intersection.sum(0).tolist() == np.diagonal(found["confusion"]).tolist()
    assert sums.label.sum(0).tolist() == np.sum(found["confusion"], 1).tolist()
    assert sums.prediction.sum(0).tolist() == np.sum(found["confusion"], 0).tolist()
    with np.load(folder / "samples.npz") as samples:
        assert samples["ids"].tolist() == [f"val-{index}" for index in (0, 1, 3, 4, 6, 7)]
        shapes = [samples[f"prediction_{k}"].shape for k in range(6)]
        assert shapes == [SIZES[index % 3] for index in (0, 1, 3, 4, 6, 7)]
        assert samples["prediction_0"].dtype == np.uint8


def test_twice_gives_the_same_but_for_times(root):
    first = evaluate(RUN, resolved(), root)
    before = {name: (first.parent / name).read_bytes() for name in ("per_image.npz", "samples.npz")}
    old = read_json(first)
    new = read_json(evaluate(RUN, resolved(), root))
    assert {k: v for k, v in old.items() if k not in VARY} == {k: v for k, v in new.items() if k not in VARY}
    timeless = [{k: v for k, v in one["cost"].items() if not k.startswith("latency_ms")} for one in (old, new)]
    assert timeless[0] == timeless[1]
    assert {name: (first.parent / name).read_bytes() for name in before} == before


def test_best_on_validation_stands_beside_the_result(tmp_path):
    finished_run(tmp_path, resolved(), best=True)
    found = read_json(evaluate(RUN, resolved(), tmp_path))
    assert found["scores"] == score_of(tmp_path, 1, resolved()).summary()
    assert found["best"] == {"iteration": 30, "scores": score_of(tmp_path, 2, resolved()).summary()}
    assert found["best"]["scores"] != found["scores"]


def test_how_to_score_may_change_after_training(root):
    rule = resolved({"absent_classes": "zero", "short_side": 12, "batch": 2})
    found = read_json(evaluate(RUN, rule, root))
    assert found["protocol"] == {"short_side": 12, "input_scale": 1.0, "absent_classes": "zero"}
    assert found["cost"]["input"] == [3, 12, 16]
    assert found["scores"] == score_of(root, 1, rule).summary("zero")


def test_the_mean_may_be_over_classes_that_never_occur(root):
    rule = resolved({"averaged_over": 182})
    found, plain = read_json(evaluate(RUN, rule, root)), score_of(root, 1, resolved()).scores()
    assert found["protocol"]["averaged_over"] == 182
    assert found["scores"]["miou"] == pytest.approx(np.nansum(plain.iou) / 182)
    assert found["scores"]["pixel_accuracy"] == plain.pixel_accuracy


def test_where_background_is_a_class_the_mean_without_it_stands_too(root):
    evaluation, prepared = score_of(root, 1, resolved()), Prepared(root / "data/prepared/tiny")
    prepared.classes = ("background", *"abc")
    record = read_json(root / RUN.folder / "run.json")
    found = summarise(RUN, resolved(), record, evaluation, prepared)["scores"]
    assert found["foreground_miou"] == pytest.approx(np.nanmean(evaluation.scores().iou[1:]))
    assert {**evaluation.summary(), "foreground_miou": found["foreground_miou"]} == found
    over = summarise(RUN, resolved({"averaged_over": 60}), record, evaluation, prepared)["scores"]
    assert over["foreground_miou"] == pytest.approx(np.nansum(evaluation.scores().iou[1:]) / 59)


@pytest.mark.fault("P3", "an evaluation on other data")
def test_other_data_are_refused(root):
    truth = labels(8, SIZES, CLASSES, seed=5)
    write_prepared(root / "data/prepared/tiny", [paint(label) for label in truth], truth, CLASSES)
    with pytest.raises(DriftError, match="data tiny: trained on"):
        evaluate(RUN, resolved(), root)
    assert not (root / RUN.folder / "evaluation.json").exists()


@pytest.mark.fault("P3", "an evaluation under another configuration")
def test_other_configuration_is_refused_key_by_key(root):
    changed = resolved(input_scale=0.5, threads=2)
    with pytest.raises(DriftError) as caught:
        evaluate(RUN, changed, root)
    assert "recipe.input_scale: trained with 1.0, now 0.5" in str(caught.value)
    assert "recipe.threads: trained with 1, now 2" in str(caught.value)
    assert "evaluation" not in str(caught.value)


def test_settings_newer_than_the_run_take_their_defaults(root):
    path = root / RUN.folder / "run.json"
    record = read_json(path)
    del record["config"]["recipe"]["gradient_clip"]
    write_json(path, record)
    assert evaluate(RUN, resolved(), root).exists()
    record["config"]["recipe"]["no_such_key"] = 1
    write_json(path, record)
    with pytest.raises(DriftError, match="no longer exist"):
        evaluate(RUN, resolved(), root)


@pytest.mark.fault("P3", "the record of another run")
def test_another_runs_record_is_refused(root):
    path = root / RUN.folder / "run.json"
    write_json(path, read_json(path) | {"run": "quick/small/none/seed7"})
    with pytest.raises(DriftError, match="seed7"):
        evaluate(RUN, resolved(), root)


@pytest.mark.fault("P3", "weights that changed after the training")
@pytest.mark.parametrize("file", ["weights.safetensors", "best.safetensors"])
def test_changed_weights_are_refused(tmp_path, file):
    finished_run(tmp_path, resolved(), best=True)
    path = tmp_path / RUN.folder / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=file):
        evaluate(RUN, resolved(), tmp_path)
    assert not list((tmp_path / RUN.folder).glob("*.npz"))


@pytest.mark.fault("P3", "an evaluation of an unfinished run")
def test_unfinished_run_is_refused(root):
    (root / RUN.folder / "run.json").unlink()
    with pytest.raises(DataError, match=r"run\.json"):
        evaluate(RUN, resolved(), root)


def test_configuration_comes_from_params_where_none_is_given(root):
    configuration = resolved()
    params = {
        "datasets": {"tiny": describe(configuration)["dataset"]},
        "networks": {"small": NETWORK},
        "recipes": {"quick": describe(configuration)["recipe"]},
        "methods": {"none": {"method": "none"}},
    }
    (root / "params.yaml").write_text(json.dumps(params))
    assert read_json(evaluate(RUN, root=root))["images"] == 8


def test_a_trained_run_is_scored_from_its_files_alone(new_project):
    from segkd import steps
    from segkd.data.prepared import Prepared

    project = new_project()
    run, options = Run("tiny", "large"), steps.Options(root=project)
    steps.teacher(run, options)
    found = read_json(steps.evaluate(run, options))
    record = read_json(project / run.folder / "run.json")
    split = Prepared(project / "data/prepared/digits").split(found["split"])
    assert found["weights_sha256"] == record["weights"]["sha256"]
    assert found["cost"]["parameters"] == record["parameters"]
    assert PerImage.load(project / run.folder / "per_image.npz").ids == tuple(split.ids)
    counted = sum(int((split.label(index) != 255).sum()) for index in range(len(split)))
    assert np.sum(found["confusion"]) == counted
