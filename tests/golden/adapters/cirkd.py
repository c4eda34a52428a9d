"""CIRKD: relations within the batch, with the memory, and the memory itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters import Result
from segkd.methods import cirkd_channel
from segkd.methods.cirkd import POOLED_FROM, CIRKDConfig, Memory, Projector, memory_loss, minibatch_loss

Tensors = dict[str, Tensor]


def minibatch(tensors: Tensors, *, temperature: float, group_size: int | None) -> Tensor:
    return minibatch_loss(tensors["student"], tensors["teacher"], temperature=temperature, group_size=group_size)


def minibatch_released(tensors: Tensors, *, temperature: float) -> Tensor:
    student, teacher = tensors["student"], tensors["teacher"]
    pool = 4 if min(student.shape[-2:]) >= POOLED_FROM else 1
    return minibatch_loss(student, teacher, temperature=temperature, group_size=None, pool=pool)


def memory(tensors: Tensors, *, temperature: float, classes: int) -> Tensor:
    labels = tensors["labels"]
    assert bool(((labels == 255) | (labels < classes)).all())
    return memory_loss(tensors["student"], tensors["teacher"], labels, tensors["contrast"], temperature=temperature)


def _projected(tensors: Tensors) -> Tensor:
    """The student's feature through the projector with the case's weights, whose gradients are asked for."""
    student, w0, w1 = tensors["student"], tensors["w0"], tensors["w1"]
    projector = Projector(w0.shape[1], w0.shape[0]).to(student.dtype)
    assert isinstance(projector[1], nn.BatchNorm2d)
    parameters = {"0.weight": w0, "3.weight": w1}
    return torch.func.functional_call(projector, parameters, (student,))


def _bank(tensors: Tensors, preset: Any, classes: int, pixel_memory: int, region_memory: int, per_class: int) -> Memory:
    config = CIRKDConfig(preset=preset, pixel_memory=pixel_memory, region_memory=region_memory, per_class=per_class)
    bank = Memory(config, tensors["teacher"].shape[1], classes).to(tensors["teacher"].dtype)
    assert bank.pixel is not None
    assert bank.region is not None
    for ring, name in ((bank.pixel, "pixel_bank"), (bank.region, "region_bank")):
        if name in tensors:
            ring.entries.copy_(tensors[name].detach())
    return bank


def _released(
    tensors: Tensors, projected: Tensor, bank: Memory, contrasts: tuple[int, int], temperatures: tuple[float, float]
) -> Result:
    values = {}
    for name, ring, contrast in zip(("pixel", "region"), (bank.pixel, bank.region), contrasts, strict=True):
        assert ring is not None
        rows, written = ring.draw(contrast)
        values[name] = memory_loss(
            projected,
            tensors["teacher"],
            tensors["labels"],
            rows,
            written,
            temperature=temperatures[0],
            kd_temperature=temperatures[1],
        )
    assert bank.pixel is not None
    assert bank.region is not None
    state = {"pixel_bank": bank.pixel.entries, "pixel_ptr": bank.pixel.pointer}
    state |= {"region_bank": bank.region.entries, "region_ptr": bank.region.pointer}
    return Result(values, state=state)


def memory_fixed(
    tensors: Tensors,
    *,
    classes: int,
    pixel_memory: int,
    region_memory: int,
    pixel_contrast: int,
    region_contrast: int,
    temperature: float,
    kd_temperature: float,
    rng_seed: int,
) -> Result:
    bank, projected = _bank(tensors, "released", classes, pixel_memory, region_memory, 16), _projected(tensors)
    torch.manual_seed(rng_seed)
    return _released(tensors, projected, bank, (pixel_contrast, region_contrast), (temperature, kd_temperature))


def memory_released(
    tensors: Tensors,
    *,
    classes: int,
    pixel_memory: int,
    region_memory: int,
    pixel_contrast: int,
    region_contrast: int,
    temperature: float,
    kd_temperature: float,
    rng_seed: int,
) -> Result:
    bank, projected = _bank(tensors, "released", classes, pixel_memory, region_memory, 16), _projected(tensors)
    torch.manual_seed(rng_seed)
    bank.update(tensors["teacher"].detach(), tensors["labels"], chosen=_drawn_as_released(tensors, classes))
    return _released(tensors, projected, bank, (pixel_contrast, region_contrast), (temperature, kd_temperature))


def _drawn_as_released(tensors: Tensors, classes: int) -> tuple[Tensor, Tensor]:
    """(positions, numbers): one torch.randperm per image and class present, which the golden values were drawn with."""
    labels, height, width = tensors["labels"], *tensors["teacher"].shape[-2:]
    rows = torch.arange(height) * labels.shape[1] // height
    small = labels[:, rows[:, None], torch.arange(width) * labels.shape[2] // width].flatten(1)
    positions = torch.zeros(len(labels), classes, 16, dtype=torch.int64)
    numbers = torch.zeros(len(labels), classes, dtype=torch.int64)
    for image, label in enumerate(small):
        for c in sorted(set(label.tolist()) - {255}):
            n = int((label == c).sum())
            numbers[image, c] = min(n, 16)
            positions[image, c, : min(n, 16)] = torch.randperm(n)[:16]
    return positions, numbers


def channel(tensors: Tensors, *, temperature: float, kd_temperature: float, rng_seed: int) -> Result:
    teacher = cirkd_channel.pooled(tensors["teacher"])
    student = _projected(tensors | {"student": cirkd_channel.pooled(tensors["student"])})
    bank = tensors["bank"].detach().clone()
    torch.manual_seed(rng_seed)
    cirkd_channel.remember_channels(bank, 0, teacher.detach())
    values = {
        "batch": cirkd_channel.channel_batch_loss(student, teacher, temperature=temperature),
        "memory": cirkd_channel.channel_memory_loss(
            student, teacher, bank, temperature=temperature, kd_temperature=kd_temperature
        ),
        "mse": cirkd_channel.channel_mse_loss(student, teacher),
    }
    return Result(values, state={"bank": bank})


def memory_update(tensors: Tensors, *, classes: int, per_class: int) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    torch.manual_seed(0)
    bank = _bank(tensors, "paper", classes, 1000, 100, per_class)
    bank.update(tensors["teacher"].detach(), tensors["labels"])
    found = []
    for ring in (bank.pixel, bank.region):
        assert ring is not None
        assert torch.equal(ring.pointer, ring.filled)
        found.append({c: ring.entries[c, : int(ring.filled[c])] for c in range(classes) if ring.filled[c]})
    return found[0], found[1]


LOSSES = {
    "cirkd.minibatch@paper": minibatch,
    "cirkd.minibatch@released": minibatch_released,
    "cirkd.memory@paper": memory,
    "cirkd.memory@released": memory_released,
    "cirkd.memory_fixed": memory_fixed,
    "cirkd.channel": channel,
}
PROPERTIES = {"cirkd.memory_update": memory_update}
