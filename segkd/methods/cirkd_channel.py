"""Channel-level relations of CIRKD's second version (authors' repository, technical report 2025): loss functions only.

No table of the five papers needs them, so no method offers them; they complete what the released code computes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from segkd.ops.precision import widen
from segkd.ops.relations import memory_divergence, pairs_divergence
from segkd.ops.unit import split
from segkd.ops.vectors import direction_distance

ROWS_PER_UPDATE = 256


def pooled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
    """4 x 4 average pooling (ceil), before the student's projector and on the teacher's map."""
    return functional.avg_pool2d(widen(x), 4, ceil_mode=True)


def _vectors(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Channels as vectors over the positions, where the kernels expect them: along dim 1."""
    return x.flatten(2).transpose(1, 2)


def channel_batch_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], *, temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Mean over ordered pairs of images and channels of KL(rows of t || rows of s), rows: channel cosines."""
    return pairs_divergence(_vectors(student), _vectors(teacher), temperature=temperature, groups=(student.shape[0],))


def channel_memory_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
    contrast: Float[Tensor, "k n"],
    *,
    temperature: float = 0.1,
    kd_temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean over images and channels of KL between their similarities to remembered channel vectors of the teacher."""
    images, channels = student.shape[:2]
    weight = widen(student[:0]).new_full((images, channels), 1 / (images * channels))
    return memory_divergence(
        _vectors(student),
        _vectors(teacher),
        contrast,
        weight,
        temperature=temperature * kd_temperature,
        scale=kd_temperature**2,
    )


def channel_mse_loss(student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Mean over all elements of (norm_N(s) - norm_N(t))^2, norm = L2 over the positions."""
    return direction_distance(_vectors(student), _vectors(teacher), power=2, scale=1 / student.numel())


@torch.no_grad()
def remember_channels(
    bank: Float[Tensor, "k n"],
    pointer: int,
    teacher: Float[Tensor, "b c h w"],
    generator: torch.Generator | None = None,
) -> int:
    """Write up to 256 of the teacher's unit channel vectors, in random order, into the ring; the new pointer."""
    rows = split(teacher.flatten(2), 2)[0].flatten(0, 1)
    chosen = torch.randperm(len(rows), generator=generator).to(rows.device)[:ROWS_PER_UPDATE]
    slots = (pointer + torch.arange(len(chosen), device=rows.device)) % len(bank)
    bank[slots] = rows[chosen].to(bank.dtype)
    return int((pointer + len(chosen)) % len(bank))
