"""One run from its configuration to run.json: a student with or without a teacher."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from segkd import crash
from segkd.config.fingerprint import code_fingerprint
from segkd.config.network import NetworkConfig
from segkd.config.recipe import Recipe
from segkd.config.runs import Run, describe
from segkd.data.loading import batches
from segkd.data.prepared import Prepared, Split
from segkd.errors import CheckpointError, ConfigError
from segkd.files import clear_left, write_json
from segkd.methods.base import Method
from segkd.methods.registry import method_class, method_config
from segkd.networks import weights
from segkd.networks.build import Network, build
from segkd.ops.synchronised import synchronise
from segkd.training import determinism, manifest, processes
from segkd.training import state as states
from segkd.training.device import Place, choose
from segkd.training.inputs import Finished, Job, bytes_digest, finished, load_teacher, load_weights, prepared
from segkd.training.learner import Learner, StudentLearner
from segkd.training.lock import only_writer
from segkd.training.loop import Journal, Plan, Training, Validate, fit
from segkd.training.memory import enough_memory, training_with
from segkd.training.progress import Display
from segkd.training.signals import StopRequest

log = logging.getLogger(__name__)

Validator = Callable[[Network, Split, Recipe, int, torch.device, Callable[[], bool]], float | None]


def train(job: Job, journal: Journal, validator: Validator | None = None, *, save_seconds: float = 60.0) -> None:
    """Train the run's network and write its folder, run.json last; goes on where an earlier attempt stopped.

    validator: scores the network on a split (mIoU, 0..1) while it trains, where the recipe asks for it; None where it
    was asked to stop before it had finished.
    """
    place = choose(job.recipe.precision, job.recipe.threads, job.recipe.determinism)
    data = prepared(job)
    torch.manual_seed(job.resolved.seed or 0)
    network = build_network(job.resolved.network, len(data.classes))
    learner, inputs = student_learner(job, network, data, place)
    processes.seed(job.resolved.seed or 0)  # dropout draws the same whatever a method has drawn for its own weights
    split, plan = data.split("train"), student_plan(job.recipe, len(data.split("train")), save_seconds)
    validate = None
    if validator is not None and plan.select_every and not processes.rank():
        chosen = data.split(job.recipe.evaluation.select_split)
        validate = partial(validator, network, chosen, job.recipe, len(data.classes), place.device)
    execute(job, learner, plan, place, journal, split, data, inputs, validate)


def build_network(config: NetworkConfig, classes: int) -> Network:
    """The network, with ImageNet weights where the configuration names them."""
    network = build(config, classes)
    if config.pretrained is not None:
        from segkd.networks.pretrained import load_pretrained

        load_pretrained(network, config.pretrained)
    return network


def student_learner(
    job: Job, network: Network, data: Prepared, place: Place
) -> tuple[StudentLearner, dict[str, Finished]]:
    """The student with its method and teacher on the device, and the finished runs that they came from."""
    entry = job.resolved.method
    if entry.method == "none":
        if entry.options:
            raise ConfigError(
                f"method `none` has no hyper-parameters; remove {', '.join(entry.options)} from params.yaml"
            )
        place.module(network)
        return StudentLearner(network, job.recipe), {}
    teacher, done = load_teacher(job, data, place)
    inputs = {"teacher": done}
    method = build_method(job, network, teacher, len(data.classes))
    pretraining = method.pretraining(method.config, network.channels, teacher.channels, len(data.classes))
    if pretraining is not None:
        run = job.run
        before = finished(job.root, Run(run.recipe, run.network, run.method, run.teacher, None))
        load_weights(pretraining, before)
        method.adopt(pretraining)
        inputs["pretraining"] = before
    place.module(network)
    place.module(method)
    return StudentLearner(network, job.recipe, method, teacher), inputs


def build_method(job: Job, student: Network, teacher: Network, classes: int) -> Method:
    """The run's method from its entry in params.yaml; ConfigError where the teacher is not of the variant it needs."""
    entry = job.resolved.method
    cls = method_class(entry.method)
    config = method_config(entry.method, entry.options, where=f"params.yaml: methods.{job.run.method}")
    found = job.resolved.teacher.attention if job.resolved.teacher else "none"
    wanted = cls.teacher_variant(config)
    if wanted not in {"none", found}:
        raise ConfigError(
            f"method {job.run.method!r} needs a teacher trained with attention: {wanted}, "
            f"network {job.run.teacher!r} has attention: {found}; add such a network to params.yaml and name it here"
        )
    return cls(config, student.channels, teacher.channels, classes).train()


def per_epoch(images: int, batch: int) -> int:
    """Batches of one epoch: whole ones only, at least one."""
    return max(1, images // batch)


def student_plan(recipe: Recipe, images: int, save_seconds: float) -> Plan:
    """The recipe's schedule in iterations."""
    count = per_epoch(images, recipe.batch)
    iterations = recipe.iterations or math.ceil((recipe.epochs or 0) * count)
    return Plan(
        iterations=iterations,
        per_epoch=count,
        batch=recipe.batch,
        micro_batch=recipe.micro_batch or recipe.batch,
        optimiser=recipe.optimiser,
        schedule=recipe.schedule,
        augmentation=recipe.augmentation,
        gradient_clip=recipe.gradient_clip,
        select_every=recipe.evaluation.select_every,
        log_every=max(1, min(50, iterations // 50)),
        save_seconds=save_seconds,
    )


def execute(
    job: Job,
    learner: Learner,
    plan: Plan,
    place: Place,
    journal: Journal,
    split: Split,
    data: Prepared,
    inputs: dict[str, Finished],
    validate: Validate | None = None,
) -> None:
    """Train, write weights and run.json, drop the state; the teacher must come out byte for byte as it went in."""
    started, state_folder = manifest.now(), job.folder / "state"
    origin, first, count = origins(job, data, inputs), processes.rank() == 0, processes.count()
    teacher = getattr(learner, "teacher", None)
    for part in (*learner.modules.values(), *([teacher] if teacher is not None and teacher.training else [])):
        synchronise(part.train())
    if job.recipe.compile:
        learner.compile()
    with (
        only_writer(state_folder) if first else nullcontext(),
        StopRequest() as request,
        Display(job.run.name, plan.iterations, shown=first) as display,
    ):
        if job.fresh and first:
            for old in state_folder.glob("state-*"):
                old.unlink()
        processes.agreed(False)  # nobody reads what the first may still discard
        for name in ("weights.safetensors", "best.safetensors", "run.json", "metrics.jsonl", "nonfinite.json"):
            if first:
                clear_left(job.folder / name)
        conditions, stopping = conditions_of(origin, place), lambda: request.asked
        run = Training(job.folder, learner, plan, place, journal, display, conditions, validate, stopping, job.command)
        before = bytes_digest(teacher) if teacher is not None else None
        make = partial(
            batches,
            split,
            job.recipe,
            seed=job.resolved.seed or 0,
            stop=plan.iterations,
            workers=job.workers or -(-place.loaders // count),
            pin=place.device.type == "cuda",
            part=(processes.rank(), count),
        )
        with enough_memory(place, *training_with(plan, job.recipe.augmentation.crop)):
            fit(run, lambda start: make(start=start), allow_drift=job.allow_drift)
        if teacher is not None and bytes_digest(teacher) != before:
            raise CheckpointError(f"run {job.run.name!r} changed its teacher's weights; its result is not kept")
        processes.require_equal(learner.modules, plan.iterations)
        if not first:
            return
        crash.point("trained")
        write_result(job, run, origin, place, started)
        crash.point("result written")
        journal.event(plan.iterations, "finish")
        journal.flush()
    states.discard(state_folder)


def origins(job: Job, data: Prepared, inputs: dict[str, Finished]) -> dict[str, Any]:
    """What the run comes from: configuration, code, data, teacher, pretraining; each with its hash."""
    method = job.resolved.method.method
    return {
        "config": describe(job.resolved),
        "config_sha256": job.resolved.sha256(),
        "code": {"fingerprint": code_fingerprint(job.step, method)} | manifest.git(job.root),
        "data": {"name": job.recipe.dataset, "sha256": data.sha256},
        "teacher": inputs["teacher"].reference if "teacher" in inputs else None,
        "pretraining": inputs["pretraining"].reference if "pretraining" in inputs else None,
    }


def conditions_of(origin: dict[str, Any], place: Place) -> dict[str, object]:
    """What must not change between two attempts at the same run."""
    return {
        "configuration": {"sha256": origin["config_sha256"], "of": origin["config"]},
        "code": origin["code"]["fingerprint"],
        "data": origin["data"]["sha256"],
        "teacher": (origin["teacher"] or {}).get("weights_sha256"),
        "pretraining": (origin["pretraining"] or {}).get("weights_sha256"),
        "torch": torch.__version__,
        "device": place.name or "cpu",
        "processes": processes.count(),
    }


def write_result(job: Job, run: Training, origin: dict[str, Any], place: Place, started: str) -> None:
    """weights.safetensors, then run.json: the second exists only if the first is complete."""
    result = run.learner.result
    path = job.folder / "weights.safetensors"
    sha = weights.write(path, result.state_dict())
    crash.point("weights written")
    iterations = run.plan.iterations
    record = {
        "format": 1,
        "run": job.run.name,
        "step": job.step,
        **origin,
        "weights": {"file": path.name, "sha256": sha, "bytes": path.stat().st_size},
        "best": run.best,
        "seed": job.resolved.seed,
        "versions": manifest.versions(),
        "hardware": manifest.hardware(place),
        "processes": processes.count(),
        "determinism": determinism.settings(),
        "timing": {
            "started": started,
            "finished": manifest.now(),
            "wall_seconds": round(run.elapsed, 3),
            "iterations": iterations,
            "iterations_per_second": round(iterations / run.elapsed, 3) if run.elapsed else None,
            "resumes": run.resumes,
        },
        "memory": manifest.memory(place),
        "drift": run.drift,
        "parameters": sum(parameter.numel() for parameter in result.parameters()),
        "command": job.command,
    }
    write_json(job.folder / "run.json", record)
    log.info("%s: finished, weights %s", job.run.name, sha[:16])
