"""A released checkpoint becomes a run that is scored, tracked and reported like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import foreign_names as names
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from segkd import steps
from segkd.cli import app
from segkd.config.load import load_params
from segkd.config.network import NetworkConfig
from segkd.config.runs import PREPARED, Run, resolve
from segkd.data.prepared import Prepared
from segkd.errors import CheckpointError, ConfigError
from segkd.evaluation.evaluate import evaluate_network
from segkd.files import read_json, sha256_file
from segkd.imports import step
from segkd.imports.read import Foreign
from segkd.networks.build import Network, build
from segkd.networks.weights import read
from segkd.tracking.record import datasets, points, read_record, status, tags

RUN = Run("tiny", "small", "as-released")
NAMES = {"backbone.": "module.encoder.", "head.conv.": "module.classifier.", "head.classifier.": "module.classifier.4."}
RULES = {"rules": [{"pattern": "encoder", "to": "backbone"}]}


def released(root: Path, seed: int = 0) -> Network:
    """A network of the tiny project with random weights."""
    torch.manual_seed(seed)
    return build(NetworkConfig.model_validate(load_params(root / "params.yaml").networks["small"]), 11).eval()


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the tests' own checkpoints in this process: what a confined one costs is paid once, in the first test."""

    def plain(path: Path) -> Foreign:
        tensors = torch.load(path, weights_only=True)
        return Foreign(path, sha256_file(path), path.stat().st_size, tensors, "", {}, "none")

    monkeypatch.setattr(step, "read_checkpoint", plain)


def bring(root: Path, file: Path, **options: object) -> Path:
    return steps.import_checkpoint(file, "torchvision", network="small", recipe="tiny", root=root, **options)


def test_from_the_command_line_to_the_score(new_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_project()
    theirs = released(root)
    file, rules = root / "theirs.pth", root / "rules.yaml"
    torch.save({"state_dict": names.renamed(theirs, NAMES), "best_pred": np.float64(0.7)}, file)
    rules.write_text(yaml.safe_dump(RULES))
    words = [
        "--from",
        "torchvision",
        "--network",
        "small",
        "--recipe",
        "tiny",
        "--rules",
        str(rules),
        "--root",
        str(root),
    ]
    done = CliRunner().invoke(app, ["import-checkpoint", str(file), *words])
    assert (done.exit_code, done.output.strip()) == (0, str(root / RUN.folder)), done.exception

    record = read_json(root / RUN.folder / "run.json")
    assert record["run"] == "tiny/small/as-released/seed0" and record["step"] == "import"
    assert record["data"] == {"name": "digits", "sha256": None}
    told = record["import"]
    assert (told["file"], told["sha256"], told["under"]) == ("theirs.pth", sha256_file(file), "state_dict")
    assert told["beside"] == {"'best_pred'": "float64"}
    assert told["rules_file"] == {"file": "rules.yaml", "sha256": sha256_file(rules), "left_out": {}, **RULES}
    assert told["keys"] == len(theirs.state_dict())
    assert told["differences"] == ["logits are enlarged with align_corners False there, True here"]
    weights = read(root / RUN.folder / "weights.safetensors", record["weights"]["sha256"])
    assert all(torch.equal(weights[key], tensor) for key, tensor in theirs.state_dict().items())

    monkeypatch.chdir(root)
    scored = read_json(steps.evaluate(RUN, steps.Options()))
    prepared, recipe = Prepared(root / PREPARED / "digits"), load_params().recipes["tiny"]
    wanted = evaluate_network(theirs, prepared.split("test"), recipe, 11, torch.device("cpu"), samples=0)
    assert scored["confusion"] == wanted.confusion.tolist()
    assert scored["data_sha256"] == prepared.sha256

    seen = read_record(root, RUN, {})
    assert status(seen)[0] == "FINISHED"
    found = tags(seen, "voc")
    assert found["step"] == "import" and "data_sha256" not in found
    assert [(one.name, one.digest) for one in datasets(seen)] == [("digits-test", prepared.sha256[:36])]
    assert {"test/miou", "cost/training_iterations"} <= {point.key for point in points(seen)}
    assert "torchvision --network small --recipe tiny --rules rules.yaml" in found["command"]


def test_another_file_needs_fresh(new_project: Callable[..., Path], read_here: None) -> None:
    root = new_project()
    first, second = root / "first.pth", root / "second.pth"
    for seed, file in enumerate((first, second)):
        torch.save(names.renamed(released(root, seed), names.TORCHVISION_FCN), file)
    record = bring(root, first) / "run.json"
    before = record.read_bytes(), (record.parent / "weights.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"first\.pth") as caught:
        bring(root, second)
    assert sha256_file(second) in str(caught.value) and "--fresh" in str(caught.value)
    assert before == (record.read_bytes(), (record.parent / "weights.safetensors").read_bytes())
    bring(root, first)
    assert read_json(record)["weights"]["sha256"] == sha256_file(record.parent / "weights.safetensors")
    bring(root, second, fresh=True)
    assert read_json(record)["import"]["file"] == "second.pth"


@pytest.mark.fault("P3", "an import that does not fit")
def test_nothing_is_written_for_a_file_that_does_not_fit(new_project: Callable[..., Path], read_here: None) -> None:
    root = new_project()
    file = root / "theirs.pth"
    state = names.renamed(released(root), names.TORCHVISION_FCN)
    del state["classifier.4.bias"]
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"head\.classifier\.bias \(11,\)"):
        bring(root, file)
    assert not (root / RUN.folder).exists()
    with pytest.raises(ConfigError, match="no network 'big'"):
        steps.import_checkpoint(file, "torchvision", network="big", recipe="tiny", root=root)
    with pytest.raises(ConfigError, match="no layout 'keras'"):
        steps.import_checkpoint(file, "keras", network="small", recipe="tiny", root=root)


def test_a_released_network_is_never_trained(new_project: Callable[..., Path]) -> None:
    root = new_project()
    for train in (steps.student, steps.teacher):
        with pytest.raises(
            ConfigError, match="segkd import-checkpoint FILE --from LAYOUT --network small --recipe tiny"
        ):
            train(RUN, steps.Options(root=root))
    assert not (root / RUN.folder).exists()
    assert resolve(load_params(root / "params.yaml"), RUN).method.method == "none"
