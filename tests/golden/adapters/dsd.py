"""DSD: the paper's form and the re-implementation in CIRKD's repository."""

from __future__ import annotations

from torch import Tensor

from segkd.methods.dsd import csd_loss, csd_released_loss, psd_loss, psd_released_loss

Tensors = dict[str, Tensor]


def _maps(tensors: Tensors, letter: str) -> list[Tensor]:
    return [tensors[f"{letter}{level}"] for level in range(len(tensors) // 2)]


def psd(tensors: Tensors) -> Tensor:
    return psd_loss(_maps(tensors, "s"), _maps(tensors, "t"))


def psd_released(tensors: Tensors, *, levels: int) -> Tensor:
    assert len(tensors) == 2 * levels
    return psd_released_loss(_maps(tensors, "s"), _maps(tensors, "t"))


def csd(tensors: Tensors, *, temperature: float) -> Tensor:
    return csd_loss(tensors["student"], tensors["teacher"], temperature=temperature)


def csd_released(tensors: Tensors) -> Tensor:
    return csd_released_loss(tensors["student"], tensors["teacher"])


LOSSES = {"dsd.psd": psd, "dsd.csd": csd, "cirkd.psd": psd_released, "cirkd.csd": csd_released}
