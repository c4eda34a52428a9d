"""What one run costs: operations of training and scoring, hours on a stated GPU, bytes of its weights and state."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from segkd.config.params import Params
from segkd.config.recipe import Recipe
from segkd.config.runs import RELEASED, Resolved, Run, pick, resolve
from segkd.data.footprint import Facts, facts
from segkd.evaluation.inputs import input_size
from segkd.overview import flops
from segkd.training.run import per_epoch

FLOAT32 = 0.5  # peak of scoring, done in float32 (TF32 convolutions), as a share of the peak in bfloat16
_NUMBER = 4  # bytes of a parameter
_GENERATIONS = 2  # states of an unfinished run that are kept


@dataclass(frozen=True)
class Machine:
    """The GPU that hours are stated for. tflops: its dense bfloat16 peak; utilisation: the share of it that is reached.

    The defaults are an A100's peak, and what networks with dilated convolutions make of it.
    """

    tflops: float = 312.0
    utilisation: float = 0.25

    def hours(self, training: float, scoring: float) -> float:
        """Hours for so many operations."""
        return (training + scoring / FLOAT32) / (self.tflops * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True)
class Cost:
    """Operations of training and of scoring; bytes of the weights that stay, and of the state while a run lasts."""

    training: float
    scoring: float
    weights: int
    state: int

    def hours(self, machine: Machine) -> float:
        """Hours on one such GPU."""
        return machine.hours(self.training, self.scoring)


class Costs:
    """Costs of the runs of one params.yaml; seeds cost the same, and data sets are looked at once."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._facts: dict[str, Facts] = {}
        self._costs: dict[Run, Cost] = {}

    def facts(self, dataset: str) -> Facts:
        """Facts of a data set in params.yaml; errors as in `segkd.data.footprint.facts`."""
        if dataset not in self._facts:
            self._facts[dataset] = facts(pick(self._params.datasets, dataset, "dataset"))
        return self._facts[dataset]

    def of(self, run: Run) -> Cost:
        """Cost of a run; ConfigError or DataError where its network, method or data set cannot be looked at."""
        like = run if run.seed is None else replace(run, seed=0)
        if like not in self._costs:
            resolved = resolve(self._params, like)
            known = self.facts(resolved.recipe.dataset)
            self._costs[like] = _pretraining(resolved, known) if run.seed is None else _run(like, resolved, known)
        return self._costs[like]


def _run(run: Run, resolved: Resolved, known: Facts) -> Cost:
    classes, recipe = known.classes, resolved.recipe
    iterations = 0 if run.method == RELEASED else length(recipe, known)
    best = bool(recipe.evaluation.select_every and iterations)
    look = flops.forward(resolved.network, classes, input_size(known.size, recipe))
    return Cost(
        training=iterations * recipe.batch * _image(resolved, classes),
        scoring=_scored(recipe, known, iterations) * look,
        weights=_NUMBER * flops.network(resolved.network, classes).numbers * (1 + best),
        state=_state(resolved, classes) if iterations else 0,
    )


def length(recipe: Recipe, known: Facts) -> int:
    """Iterations of a recipe."""
    return recipe.iterations or math.ceil((recipe.epochs or 0) * per_epoch(known.images["train"], recipe.batch))


def _image(resolved: Resolved, classes: int) -> int:
    """Operations of training on one image."""
    crop = resolved.recipe.augmentation.crop
    own = flops.training(resolved.network, classes, crop)
    if resolved.teacher is None:
        return own
    return own + flops.teaching(resolved.network, resolved.teacher, resolved.method, classes, crop)


def _scored(recipe: Recipe, known: Facts, iterations: int) -> int:
    """Images that are looked at while training and scored at the end, there twice where the best weights are kept."""
    rule = recipe.evaluation
    looks = math.ceil(iterations / rule.select_every) if rule.select_every else 0
    final = known.images.get(rule.split, 0) * (2 if looks else 1)
    return looks * known.images.get(rule.select_split, 0) + final


def _pretraining(resolved: Resolved, known: Facts) -> Cost:
    """Cost of what the method trains on the teacher before any student."""
    assert resolved.teacher is not None
    recipe, pair = resolved.recipe, (resolved.network, resolved.teacher, resolved.method, known.classes)
    image, epochs = flops.pretraining(*pair, recipe.augmentation.crop)
    iterations = max(1, math.ceil(epochs * per_epoch(known.images["train"], recipe.batch)))
    module = flops.pretraining_of(*pair)
    weights = _NUMBER * flops.Shape.of(module).numbers if module else 0
    return Cost(iterations * recipe.batch * image, 0, weights, 2 * _GENERATIONS * weights)


def _state(resolved: Resolved, classes: int) -> int:
    """Bytes of the states that are kept: all numbers of network and method, and the optimiser's of what is trained."""
    parts = [flops.network(resolved.network, classes)]
    if resolved.teacher is not None:
        method = flops.method_of(resolved.network, resolved.teacher, resolved.method, classes)
        parts.append(flops.Shape.of(method))
    moments = 2 if resolved.recipe.optimiser.name == "adamw" else 1
    return _GENERATIONS * _NUMBER * sum(one.numbers + moments * one.trained for one in parts)
