"""Cross-entropy against labels at the size of the labels, with gradients at the size of the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkd.ops.enlarge import enlarged, reduced
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.processes import divisor


class _How(NamedTuple):
    ignore: int


def _kernel(logits: Tensor, labels: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(logits, wanted), accumulator(logits)
    known = labels != how.ignore
    share = divisor(known.sum()).double().reciprocal()
    for image in range(len(logits)):
        z = enlarged(logits[image], (labels.shape[-2], labels.shape[-1]))
        log = z.log_softmax(0)
        target = labels[image].masked_fill(~known[image], 0)[None]
        total += (log.gather(0, target)[0] * known[image]).sum().neg()
        if gradient is not None:
            slope = log.exp_().scatter_add_(0, target, -torch.ones_like(log[:1]))
            slope.mul_((known[image] * share).to(slope.dtype))
            gradient[image] = reduced(slope, (logits.shape[-2], logits.shape[-1]))
    return (total * share).to(widen(logits).dtype), None if gradient is None else (gradient,)


_cross_entropy = gradient_in_forward(_kernel)


def labelled_cross_entropy(
    logits: Float[Tensor, "b c h w"], labels: Int[Tensor, "b i j"], *, ignore: int = 255
) -> Float[Tensor, ""]:
    """Mean over labelled pixels of the cross-entropy, logits brought to the labels' size (bilinear, corners aligned).

    Where every pixel is ignored: 0 with zero gradient. Kept for backward: one tensor of the logits' own size.
    """
    return _cross_entropy(logits, labels, _How(ignore))
