"""Shape guards of the loss functions, and the resize that the papers use."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkd.errors import ConfigError, explain
from segkd.networks.resize import upsample


def require_same(student: Tensor, teacher: Tensor, *, channels: bool, where: str) -> None:
    """ConfigError unless both maps agree in batch, height and width, and in channels where asked."""
    first, second = (tuple(x.shape[i] for i in range(x.dim()) if channels or i != 1) for x in (student, teacher))
    if first != second:
        raise ConfigError(
            explain(
                "Student and teacher maps differ in size.",
                expected=f"equal batch, {'channels, ' if channels else ''}height and width",
                found=f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}",
                where=where,
                fix="give both networks the same output_stride, or choose a method that resizes",
            )
        )


def bilinear(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c i j"]:
    """Resize to (height, width), bilinear with align_corners=True: the papers' rule for logits and features."""
    return upsample(x, size)


def nearest_labels(labels: Int[Tensor, "b i j"], size: tuple[int, int]) -> Int[Tensor, "b h w"]:
    """Labels on a coarser (or finer) grid: source index floor(i * H_in / H_out) per axis, values untouched."""
    rows, columns = (
        (torch.arange(out, device=labels.device) * into).div(out, rounding_mode="floor")
        for into, out in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]
