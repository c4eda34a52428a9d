"""How far two runs of one configuration and seed lie apart: differences below that are nobody's gain."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from segkd.config.base import canonical
from segkd.report import text
from segkd.report.collect import StudyEvidence
from segkd.report.evidence import PERCENT, Evidence

ON_CPU = "0 on a CPU: two runs of one configuration and seed end in the same bits"
STRICT = "0 under determinism: strict: two runs on the same GPU and versions end in the same bits"
UNKNOWN = (
    "not measured under determinism: fast on {gpu}: no configuration was trained there twice with one seed; give a "
    "method or network a second name in params.yaml, and the study a cell for it"
)


def noise_floor(study: StudyEvidence) -> list[str]:
    """A line per place that runs were trained on: what two runs of the same differ by there, measured or known."""
    found = [one for entry in study.entries for one in entry.evidence if one.record and "config" in one.record]
    pairs = [pair for pair in combinations(found, 2) if _same(*pair)]
    places = dict.fromkeys(_place(one.record or {}) for one in found if not (one.record or {}).get("import"))
    measured = {_place(first.record or {}) for first, _ in pairs}
    known = (_known(*place) for place in places if place not in measured)
    return [*(_line(*pair) for pair in pairs), *known]


def _place(record: dict[str, Any]) -> tuple[str, str]:
    """(mode, GPU), the GPU empty on a CPU."""
    mode = record.get("determinism", {}).get("mode", "fast")  # what was trained before there was a choice
    return str(mode), str(record.get("hardware", {}).get("gpu") or "")


def _known(mode: str, gpu: str) -> str:
    return ON_CPU if not gpu else STRICT if mode == "strict" else UNKNOWN.format(gpu=gpu)


def _same(first: Evidence, second: Evidence) -> bool:
    """Have both everything in common that could decide their weights?"""
    return first.run != second.run and _decides(first.record or {}) == _decides(second.record or {})


def _decides(record: dict[str, Any]) -> str:
    config = {key: value for key, value in record["config"].items() if key != "run"}
    origin = [(record.get(key) or {}).get("sha256") for key in ("data",)]
    origin += [(record.get(key) or {}).get("weights_sha256") for key in ("teacher", "pretraining")]
    rest = [record.get("code", {}).get("fingerprint"), record.get("versions"), record.get("step"), record.get("drift")]
    hardware = record.get("hardware", {})
    return canonical([config, origin, rest, [hardware.get(key) for key in ("cpu", "gpu", "threads")], _place(record)])


def _line(first: Evidence, second: Evidence) -> str:
    mode, gpu = _place(first.record or {})
    where = f"{first.run.name} and {second.run.name}, trained alike under determinism: {mode} on {gpu or 'a CPU'}"
    equal = _weights(first) == _weights(second)
    scores = [one.score("miou") for one in (first, second)]
    if None in scores:
        return f"{'0, equal weights' if equal else 'not scored yet'}: {where}"
    points = PERCENT * abs(float(scores[0] or 0.0) - float(scores[1] or 0.0))
    return f"{text.number(points)} points of mIoU, {'equal' if equal else 'different'} weights: {where}"


def _weights(one: Evidence) -> Any:
    return (one.record or {}).get("weights", {}).get("sha256")
