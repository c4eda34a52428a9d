"""What a method trains on the frozen teacher before any student: KA's autoencoder, a step of its own."""

from __future__ import annotations

import math

import torch

from segkd.config.recipe import Optimiser, Schedule
from segkd.errors import ConfigError
from segkd.methods.base import Pretraining
from segkd.methods.registry import method_class
from segkd.training.device import choose
from segkd.training.inputs import Job, load_teacher, prepared
from segkd.training.learner import PretrainingLearner
from segkd.training.loop import Journal, Plan
from segkd.training.run import build_method, build_network, execute, per_epoch


def has_pretraining(method: str) -> bool:
    """Whether a method's class declares a module to train beforehand."""
    return "pretraining" in method_class(method).__dict__


def pretrain(job: Job, journal: Journal, *, save_seconds: float = 60.0) -> None:
    """Train the method's module on the teacher's outputs and write its folder, run.json last."""
    place = choose(job.recipe.precision, job.recipe.threads, job.recipe.determinism)
    data = prepared(job)
    teacher, done = load_teacher(job, data, place)
    torch.manual_seed(0)
    student = build_network(job.resolved.network.model_copy(update={"pretrained": None}), len(data.classes))
    method = build_method(job, student, teacher, len(data.classes))
    torch.manual_seed(0)
    module = method.pretraining(method.config, student.channels, teacher.channels, len(data.classes))
    if module is None:
        raise ConfigError(f"method {job.run.method!r} has no pretraining; there is nothing to do for {job.run.name!r}")
    place.module(module)
    split = data.split("train")
    plan = pretraining_plan(job, module, len(split), save_seconds)
    execute(job, PretrainingLearner(module, teacher), plan, place, journal, split, data, {"teacher": done})


def pretraining_plan(job: Job, module: Pretraining, images: int, save_seconds: float) -> Plan:
    """The module's own schedule: its epochs, SGD, the same images and augmentation as the student's training."""
    recipe = job.recipe
    count = per_epoch(images, recipe.batch)
    iterations = max(1, math.ceil(module.epochs * count))
    return Plan(
        iterations=iterations,
        per_epoch=count,
        batch=recipe.batch,
        micro_batch=recipe.micro_batch or recipe.batch,
        optimiser=Optimiser(name="sgd", lr=module.lr, momentum=module.momentum, weight_decay=module.weight_decay),
        schedule=Schedule(),
        augmentation=recipe.augmentation,
        log_every=max(1, min(50, iterations // 50)),
        save_seconds=save_seconds,
    )
