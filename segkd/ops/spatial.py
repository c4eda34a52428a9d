"""Class-by-class matrices of how classes are spread over an image: divergences, or overlaps along columns.

Both matrices are C x C and come from one matrix product per block of pixels, never from a loop over pairs of classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.enlarge import enlarged, reduced
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


class _How(NamedTuple):
    size: tuple[int, int]
    epsilon: float
    scale: float


def unit_rows(matrix: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(matrix / max(||row||, epsilon), that denominator, 1 where the norm is the denominator else 0)."""
    norm = torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
    bottom = norm.clamp_min(epsilon)
    return matrix / bottom, bottom, (norm >= epsilon).to(matrix.dtype)


def _of_matrix(error: Tensor, rows: Tensor, bottom: Tensor, live: Tensor) -> Tensor:
    """d sum(error^2) / d matrix, error = rows - constant, (rows, bottom, live) = unit_rows(matrix)."""
    slope = 2 * error
    return (slope - rows * ((rows * slope).sum(1, keepdim=True) * live)) / bottom


def _divergences(z: Tensor) -> tuple[Tensor, Tensor]:
    """(KL(p_i || p_j) for all pairs, log of sum of exp), float64; p_i = softmax over the positions of z (C, N).

    KL_ij = E_i[z_i - z_j] - log Z_i + log Z_j: differences of small numbers where the rows of z have mean 0.
    """
    moment = torch.zeros(z.shape[0], z.shape[0], dtype=torch.float64, device=z.device)
    total, top = moment.new_zeros(z.shape[0], 1), z.amax(1, keepdim=True)
    for start, stop in spans(z.shape[1], z.shape[0], z.device):
        part = z[:, start:stop]
        e = (part - top).exp_()
        moment += e @ part.T
        total += e.sum(1, keepdim=True, dtype=torch.float64)
    expected, log = moment / total, total.log() + top
    return expected.diagonal()[:, None] - expected - log + log.T, log


def _slope(z: Tensor, log: Tensor, divergences: Tensor, of_matrix: Tensor) -> Tensor:
    """d loss / d z from d loss / d KL_ij (C, C)."""
    first = torch.diag(of_matrix.sum(1)) - of_matrix
    second = (torch.diag(of_matrix.sum(0)) - of_matrix.T).to(z.dtype)
    constant = (-(first @ log) - (of_matrix * divergences).sum(1, keepdim=True)).to(z.dtype)
    first, log = first.to(z.dtype), log.to(z.dtype)
    slope = torch.empty_like(z)
    for start, stop in spans(z.shape[1], z.shape[0], z.device):
        part = z[:, start:stop]
        p = (part - log).exp_()
        slope[:, start:stop] = torch.addmm(constant, first, part).mul_(p).addmm_(second, p)
    return slope


def _divergence_kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        s, t = (enlarged(x[image], how.size).flatten(1) for x in (student, teacher))
        s, t = (x - x.mean(1, keepdim=True) for x in (s, t))
        divergences, log = _divergences(s)
        rows, bottom, live = unit_rows(divergences, how.epsilon)
        error = rows - unit_rows(_divergences(t)[0], how.epsilon)[0]
        total += error.square().sum()
        if gradient is not None:
            slope = _slope(s, log, divergences, _of_matrix(error, rows, bottom, live) * how.scale)
            gradient[image] = reduced(slope.view(-1, *how.size), (student.shape[-2], student.shape[-1]))
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


def _overlaps(x: Tensor, size: tuple[int, int]) -> Tensor:
    """1 / B times sum of p_max(i,j) log p_max(i,j) - p_i p_j over the batch; p = softmax along each column. float64."""
    classes = x.shape[1]
    overlap = torch.zeros(classes, classes, dtype=torch.float64, device=x.device)
    entropy = overlap.new_zeros(classes)
    for image in x:
        log = enlarged(image, size).log_softmax(1).flatten(1)
        for start, stop in spans(log.shape[1], classes, log.device):
            part = log[:, start:stop]
            p = part.exp()
            overlap += p @ p.T
            entropy += (p * part).sum(1, dtype=torch.float64)
    larger = torch.arange(classes, device=x.device)
    return (entropy[torch.maximum(larger[:, None], larger)] - overlap) / len(x)


def _overlap_kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient = gradient_like(student, wanted)
    rows, bottom, live = unit_rows(_overlaps(student.detach(), how.size), how.epsilon)
    error = rows - unit_rows(_overlaps(teacher.detach(), how.size), how.epsilon)[0]
    value = (error.square().sum() * how.scale).to(widen(student).dtype)
    if gradient is None:
        return value, None
    of_matrix = _of_matrix(error, rows, bottom, live) * (how.scale / len(student))
    lower, upper = of_matrix.tril(), of_matrix.triu(1)
    of_entropy = (lower.sum(1) + upper.sum(0))[:, None].to(value.dtype)  # of all pairs whose larger index is the row
    of_overlap = (of_matrix + of_matrix.T).to(value.dtype)
    for image in range(len(student)):
        log = enlarged(student[image], how.size).log_softmax(1)
        p = log.exp().flatten(1)
        slope = log.flatten(1).add_(1).mul_(of_entropy).addmm_(of_overlap, p, alpha=-1).mul_(p).view_as(log)
        slope.sub_(p.view_as(log) * slope.sum(1, keepdim=True))
        gradient[image] = reduced(slope, (student.shape[-2], student.shape[-1]))
    return value, (gradient,)


_divergence_distance = gradient_in_forward(_divergence_kernel)
_overlap_distance = gradient_in_forward(_overlap_kernel)


def spatial_divergence_distance(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c i j"],
    *,
    size: tuple[int, int],
    epsilon: float,
    scale: float,
) -> Float[Tensor, ""]:
    """scale * sum over images and class pairs of (R_s - R_t)^2, R = K / max(||row of K||, epsilon).

    K_ij = KL(p_i || p_j), nats, p_c = softmax over the positions of class c's logits, enlarged to `size` (bilinear,
    corners aligned) first. Kept for backward: one tensor of the student's own size, not of `size`.
    """
    return _divergence_distance(student, teacher, _How(size, epsilon, scale))


def column_overlap_distance(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c i j"],
    *,
    size: tuple[int, int],
    epsilon: float,
    scale: float,
) -> Float[Tensor, ""]:
    """scale * sum over class pairs of (R_s - R_t)^2, R = K / max(||row of K||, epsilon), one K for the whole batch.

    K_ij = 1/B sum over images and pixels of p_m (log p_m - p_n), m = max(i, j), n = min(i, j), p = softmax along each
    COLUMN of the logits, enlarged to `size` first. Kept for backward: one tensor of the student's own size.
    """
    return _overlap_distance(student, teacher, _How(size, epsilon, scale))
