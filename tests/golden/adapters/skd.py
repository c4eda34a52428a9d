"""SKD: pixel-wise (released), pair-wise in both forms, the adversarial losses and the gradient penalty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adapters import Result
from segkd.methods.adversarial import Game, critic_loss, fooling_loss, gradient_penalty
from segkd.methods.skd import pairwise_cirkd_loss, pairwise_loss, pixelwise_released_loss

Tensors = dict[str, Tensor]


def pixelwise(tensors: Tensors) -> Tensor:
    return pixelwise_released_loss(tensors["student"], tensors["teacher"])


def pairwise(tensors: Tensors, *, scale: float) -> Tensor:
    return pairwise_loss(tensors["student"], tensors["teacher"], scale=scale)


def pairwise_cirkd(tensors: Tensors) -> Tensor:
    return pairwise_cirkd_loss(tensors["student"], tensors["teacher"])


def sim_dis(tensors: Tensors) -> Tensor:
    return pairwise_loss(tensors["student"], tensors["teacher"], scale=None)


def aicsd_pairwise(tensors: Tensors, *, pa_lambda: float) -> Result:
    return Result({"pa": pa_lambda * pairwise_loss(tensors["student"], tensors["teacher"], scale=0.5)})


def adversarial(tensors: Tensors, *, adv_type: Game) -> Result:
    critic = critic_loss(tensors["student"], tensors["teacher"], adv_type)
    return Result({"D": critic, "G": fooling_loss(tensors["student"])})


def penalty(tensors: Tensors, *, lambda_gp: float, alpha_seed: int) -> Tensor:
    student, teacher, weight = tensors["student"], tensors["teacher"], tensors["weight"]
    generator = torch.Generator().manual_seed(alpha_seed)
    alpha = torch.rand(len(student), 1, 1, 1, dtype=student.dtype, generator=generator)

    def discriminator(x: Tensor) -> Tensor:
        return functional.conv2d(x, weight, padding=1).tanh().mean(dim=(1, 2, 3))

    return lambda_gp * gradient_penalty(discriminator, student, teacher, alpha)


LOSSES = {
    "skd.pixelwise": pixelwise,
    "skd.pairwise": pairwise,
    "skd.pairwise_cirkd": pairwise_cirkd,
    "cirkd.skd": pairwise_cirkd,
    "skd.sim_dis": sim_dis,
    "aicsd.pa": aicsd_pairwise,
    "skd.adv": adversarial,
    "skd.gp": penalty,
}
