"""Scoring a network on a split: whole images, logits brought to the label's size, one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from segkd.config.recipe import Recipe
from segkd.data.augmentation import normalise
from segkd.data.prepared import Split
from segkd.data.resize import resize_label
from segkd.errors import DataError, explain
from segkd.evaluation.inputs import Batch, Device, batches, load
from segkd.evaluation.tally import Evaluation, Tally
from segkd.networks.resize import upsample


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every submodule has the mode it had, also where they differed."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in before.items():
            module.training = mode


def logits(network: nn.Module, batch: Batch, recipe: Recipe) -> Float[Tensor, "b classes H W"]:
    """The network's logits at the labels' size: bilinear, align_corners=True (papers/protocols, section 3).

    Always float32 weights and sums: autocast would make a score depend on the device.
    """
    outputs = network(normalise(batch.images, None, recipe.augmentation))
    return upsample(outputs.logits.float(), (batch.labels.shape[1], batch.labels.shape[2]))


def decide(scores: Float[Tensor, "b classes h w"]) -> tuple[UInt8[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Class of the greatest logit (the first of equals; an id out of range where a logit is NaN), and that logit.

    Same as `scores.max(1)`, which takes twice as long on a CPU (and `argmax` twenty times).
    """
    classes, best = scores.shape[1], scores.amax(1, keepdim=True)
    rank = torch.arange(classes, 0, -1, dtype=torch.uint8, device=scores.device).view(-1, 1, 1)
    first = ((scores == best).view(torch.uint8) * rank).amax(1)
    return classes - first, best.squeeze(1)


def confidence_of(scores: Float[Tensor, "b classes h w"], best: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """The greatest softmax probability, 1 / sum_c exp(z_c - max z), from logits and their maximum."""
    # exp(-60) adds nothing to a sum of at least 1; what lies deeper becomes denormal, and 20 times as slow (measured)
    return (scores - best.unsqueeze(1)).clamp_(min=-60).exp_().sum(1).reciprocal_()


def predict(network: nn.Module, split: Split, index: int, recipe: Recipe, device: Device) -> UInt8[np.ndarray, "H W"]:
    """Predicted class ids of one image, at the size of its stored label."""
    with evaluating(network):
        prediction, _ = decide(logits(network, load(split, (index,), recipe, device), recipe))
    return resize_label(prediction[0].cpu().numpy(), split.size(index))


def evaluate_network(
    network: nn.Module, split: Split, recipe: Recipe, classes: int, device: Device, *, samples: int = 0
) -> Evaluation:
    """Count a network's predictions over a split; the network must be on `device` and keeps its mode.

    samples: how many predicted maps to keep (see `sample_indices`). DataError where the split has no labelled pixel or
    the network predicts no class (NaN).
    """
    tally, kept = Tally(classes), set(sample_indices(len(split), samples))
    maps: dict[str, UInt8[np.ndarray, "h w"]] = {}
    with evaluating(network):
        for batch in batches(split, recipe, device):
            scores = logits(network, batch, recipe)
            prediction, best = decide(scores)
            names = [split.ids[index] for index in batch.indices]
            tally.add(names, prediction, batch.labels, confidence_of(scores, best))
            for index, guess in zip(batch.indices, prediction, strict=True):
                if index in kept:
                    maps[split.ids[index]] = resize_label(guess.cpu().numpy(), split.size(index))
    require_labels(int(tally.confusion.sum()), split)
    return tally.result(maps)


def sample_indices(images: int, count: int) -> list[int]:
    """`count` evenly spaced indices of a split, first and last among them; all where there are fewer images."""
    return sorted({round(index) for index in np.linspace(0, images - 1, min(count, images)).tolist()})


def require_labels(pixels: int, split: Split) -> None:
    """DataError where nothing was scored: a score of nothing is no score."""
    if pixels == 0:
        raise DataError(
            explain(
                "There is nothing to score.",
                expected="at least one labelled pixel",
                found=f"{len(split)} images, every pixel ignored (255)",
                where=f"split {split.name}",
                fix="choose another split in the recipe's `evaluation`, or correct the labels",
            )
        )
