"""The evaluate step: a finished run in, evaluation.json, per_image.npz and samples.npz out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from segkd.config.load import load_params
from segkd.config.runs import PREPARED, Resolved, Run, resolve
from segkd.data.prepared import Prepared
from segkd.errors import DriftError, explain, listing
from segkd.evaluation.confusion import Absent
from segkd.evaluation.cost import measure, median_input
from segkd.evaluation.evaluate import evaluate_network
from segkd.evaluation.per_image import save_arrays
from segkd.evaluation.tally import Evaluation
from segkd.files import read_json, write_json
from segkd.networks.build import build
from segkd.networks.weights import load_into, read
from segkd.training.device import choose

SAMPLES = 6


def evaluate(run: Run, resolved: Resolved | None = None, root: Path = Path()) -> Path:
    """Score a run's last weights, and beside them the best on validation where there are any; returns evaluation.json.

    resolved: the run's configuration; None reads it from root/params.yaml.
    Refuses weights whose hash is not run.json's (CheckpointError), and data or a configuration other than the run was
    trained with (DriftError; the recipe's `evaluation` may differ). Apart from `wall_seconds` and the latencies the
    result is a function of weights, data, recipe, device and number of threads. evaluation.json is written last.
    """
    started = time.perf_counter()
    resolved = resolved or resolve(load_params(root / "params.yaml"), run)
    folder, recipe = root / run.folder, resolved.recipe
    record = read_json(folder / "run.json")
    prepared = Prepared(root / PREPARED / recipe.dataset)
    _refuse_drift(record, run, resolved, prepared)
    place = choose("float32", recipe.threads, recipe.determinism)
    network = build(resolved.network, len(prepared.classes)).to(place.device)
    split = prepared.split(recipe.evaluation.split)

    def score(weights: dict[str, Any], samples: int) -> Evaluation:
        path = folder / weights["file"]
        load_into(network, read(path, sha256=weights["sha256"]), where=str(path))
        return evaluate_network(network, split, recipe, len(prepared.classes), place.device, samples=samples)

    last = score(record["weights"], SAMPLES)
    cost = measure(network, median_input(split, recipe), place.device)
    best = score(record["best"], 0) if record.get("best") else None
    last.per_image.save(folder / "per_image.npz")
    save_samples(folder / "samples.npz", last)
    result = summarise(run, resolved, record, last, prepared)
    result["best"] = best and {
        "iteration": record["best"]["iteration"],
        "scores": _scores(best, recipe.evaluation.absent, prepared.classes),
    }
    result["cost"] = cost.as_json()
    result["wall_seconds"] = round(time.perf_counter() - started, 3)
    write_json(folder / "evaluation.json", result)
    return folder / "evaluation.json"


def summarise(
    run: Run, resolved: Resolved, record: dict[str, Any], last: Evaluation, prepared: Prepared
) -> dict[str, Any]:
    """evaluation.json without `best`, `cost` and `wall_seconds`."""
    rule = resolved.recipe.evaluation
    return {
        "format": 1,
        "run": run.name,
        "split": rule.split,
        "protocol": {
            "short_side": rule.short_side,
            "input_scale": resolved.recipe.input_scale,
            "absent_classes": rule.absent_classes,
            **({"averaged_over": rule.averaged_over} if rule.averaged_over else {}),
        },
        "classes": list(prepared.classes),
        "images": len(last.per_image.ids),
        "weights_sha256": record["weights"]["sha256"],
        "data_sha256": prepared.sha256,
        "scores": _scores(last, rule.absent, prepared.classes),
        "per_class": last.per_class(prepared.classes),
        "confusion": last.confusion.tolist(),
    }


def _scores(evaluation: Evaluation, absent: Absent, classes: tuple[str, ...]) -> dict[str, float | int | None]:
    """Scores by name; where background is a class, also the mean without it (Pascal Context is published both ways)."""
    found = evaluation.summary(absent)
    return {**found, **evaluation.foreground(absent)} if classes[0] == "background" else found


def save_samples(path: Path, evaluation: Evaluation) -> None:
    """Write `ids` (K,) and prediction_0 ... prediction_<K-1>, uint8 (H, W), in one step."""
    maps = {f"prediction_{k}": map_ for k, map_ in enumerate(evaluation.samples.values())}
    save_arrays(path, {"ids": np.array(list(evaluation.samples), dtype=np.str_), **maps})


def _refuse_drift(record: dict[str, Any], run: Run, resolved: Resolved, prepared: Prepared) -> None:
    """DriftError that lists everything in which the run was trained otherwise than it would be scored now."""
    faults = [] if record["run"] == run.name else [f"run: trained as {record['run']}, asked for {run.name}"]
    if record["data"]["sha256"] not in (None, prepared.sha256):  # None: weights from elsewhere, imported
        faults.append(f"data {prepared.name}: trained on {record['data']['sha256']}, prepared now {prepared.sha256}")
    faults += _differences(_trained_with(record), resolved)
    again = record.get("command", f"segkd {record['step']} {run.name}")
    if faults:
        raise DriftError(
            explain(
                "This run was trained with something else than it would be scored with.",
                expected="the data and the configuration named in its run.json",
                found="\n" + listing(faults),
                where=run.folder / "run.json",
                fix=f"make it again ({again}), or bring back the data or params.yaml",
            )
        )


def _trained_with(record: dict[str, Any]) -> Resolved | None:
    """The run's own configuration, settings that are newer than it filled in; None where it can no longer be read."""
    try:
        return Resolved.model_validate(record["config"])
    except ValidationError:
        return None


def _differences(trained: Resolved | None, resolved: Resolved) -> list[str]:
    """Settings that differ between training and now. How to score may change; the data are compared by content."""
    if trained is None:
        return ["configuration: that of training has keys or values which no longer exist"]
    same = {"recipe": trained.recipe.model_copy(update={"evaluation": resolved.recipe.evaluation})}
    before = trained.model_copy(update={**same, "dataset": resolved.dataset}).model_dump(mode="json")
    now = resolved.model_dump(mode="json")
    return [f"{key}: trained with {old!r}, now {new!r}" for key, old, new in _leaves(before, now)]


def _leaves(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted path, old, new) of every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [leaf for key in keys for leaf in _leaves(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [(path, old, new)]
