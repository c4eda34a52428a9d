"""The adversarial ("holistic") term of SKD, IFVD and CWD: a discriminator on logits, and the losses of both sides.

Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019, arXiv 1903.04197, section 3.2; the
architecture follows its released code, which gives the discriminator no image (the paper does). Gradient penalty:
Gulrajani et al., 2017, arXiv 1704.00028; self-attention: Zhang et al., 2019, arXiv 1805.08318.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from segkd.methods.base import Method, MethodConfig, OwnOptimiser, Progress
from segkd.methods.checks import refuse_idle
from segkd.networks.outputs import Channels, Outputs
from segkd.networks.parts import BatchNorm
from segkd.ops.precision import full_precision, widen

Game = Literal["wgan-gp", "hinge"]
WIDTH = 64  # channels of the first convolution; the next three have 2, 4 and 8 times as many


def critic_loss(student: Float[Tensor, "*shape"], teacher: Float[Tensor, "*shape"], game: Game) -> Float[Tensor, ""]:
    """What the discriminator minimises. wgan-gp: -E D(t) + E D(s); hinge: E max(0, 1 - D(t)) + E max(0, 1 + D(s)).

    student, teacher: the discriminator's outputs. The gradient penalty is a term of its own.
    """
    s, t = widen(student), widen(teacher)
    if game == "wgan-gp":
        return s.mean() - t.mean()
    return functional.relu(1 - t).mean() + functional.relu(1 + s).mean()


def fooling_loss(student: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """What the student minimises, in both games: -E D(s)."""
    return -widen(student).mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
    alpha: Float[Tensor, "b 1 1 1"],
) -> Float[Tensor, ""]:
    """Mean over images of (||d D(x) / d x||_2 - 1)^2 at x = alpha t + (1 - alpha) s; no gradient to either network."""
    x = (alpha * teacher.detach() + (1 - alpha) * student.detach()).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class SelfAttention(nn.Module):
    """SAGAN's self-attention: x + gamma * attention(x), gamma = 0 at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape as `x`."""
        energy = self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        mixed = self.value(x).flatten(2) @ energy.softmax(dim=-1).transpose(1, 2)
        return x + self.gamma * mixed.view_as(x)


class Discriminator(nn.Module):
    """Batch norm of the logits, four spectrally normalised 4x4 convolutions of stride 2, self-attention after the last
    two, and a 4x4 convolution to one score per remaining position.

    Maps too small for the next convolution are padded with zeros, so that small studies work; at the published crop
    sizes nothing is padded.
    """

    def __init__(self, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        widths = [width * factor for factor in (1, 2, 4, 8)]
        self.norm = BatchNorm(classes)
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(into, out, 4, stride=2, padding=1))
            for into, out in zip((classes, *widths), widths, strict=False)
        )
        self.attentions = nn.ModuleList([nn.Identity(), nn.Identity(), *map(SelfAttention, widths[2:])])
        self.score = nn.Conv2d(widths[-1], 1, 4)

    def forward(self, logits: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        """One score per image and remaining position, float32 also under autocast."""
        with full_precision(logits):
            x = self.norm(widen(logits))
            for conv, attention in zip(self.convs, self.attentions, strict=True):
                x = attention(functional.leaky_relu(conv(at_least(x, 2)), 0.1))
            return self.score(at_least(x, 4)).flatten(1)


def at_least(x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c i j"]:
    """`x` padded with zeros at the bottom and right to at least side x side."""
    height, width = (max(0, side - n) for n in x.shape[-2:])
    return functional.pad(x, (0, width, 0, height)) if height or width else x


class AdversarialConfig(MethodConfig):
    """Hyper-parameters of methods with an adversarial term."""

    adversarial: float = Field(0.0, ge=0, description="weight of the student's adversarial term; 0 = no discriminator")
    game: Game = Field("wgan-gp", description="losses of the two sides: wgan-gp, or hinge (CIRKD's re-implementation)")
    critic: float = Field(0.1, gt=0, description="factor on the discriminator's own loss")
    penalty: float = Field(10.0, ge=0, description="weight of the gradient penalty in it; wgan-gp only")
    critic_optimiser: Literal["sgd", "adam"] = Field("adam", description="of the discriminator; Adam with (0.9, 0.99)")
    critic_lr: float = Field(4e-4, gt=0, description="learning rate of the discriminator")
    critic_width: int = Field(WIDTH, ge=2, description="channels of the discriminator's first convolution")
    critic_poly: bool = Field(True, description="whether that rate follows the recipe's schedule")

    @model_validator(mode="after")
    def _idle_keys(self) -> AdversarialConfig:
        keys = {"game", "critic", "penalty", "critic_optimiser", "critic_lr", "critic_width", "critic_poly"}
        refuse_idle(self, keys, idle=self.adversarial == 0, why="adversarial is 0, so there is no discriminator")
        refuse_idle(self, {"penalty"}, idle=self.game == "hinge", why="the hinge game has no gradient penalty")
        return self


class Adversarial(Method):
    """Base of methods that may have a discriminator: it owns the module, its optimiser and its loss."""

    config: AdversarialConfig

    def __init__(self, config: AdversarialConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        if config.adversarial:
            self.discriminator = Discriminator(classes, config.critic_width)

    def adversarial_terms(self, student: Outputs) -> dict[str, Tensor]:
        """{"adversarial": weight * -E D(z_s)}, the discriminator's weights untouched; {} where it is off."""
        if not self.config.adversarial:
            return {}
        self.discriminator.requires_grad_(False)
        try:
            return {"adversarial": self.config.adversarial * fooling_loss(self.discriminator(student.logits))}
        finally:
            self.discriminator.requires_grad_(True)

    def own_optimisers(self) -> Iterable[OwnOptimiser]:
        """The discriminator's, where there is one."""
        if self.config.adversarial:
            yield OwnOptimiser(
                "discriminator",
                tuple(self.discriminator.parameters()),
                kind=self.config.critic_optimiser,
                lr=self.config.critic_lr,
                poly=self.config.critic_poly,
            )

    def critic(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"discriminator", "penalty"}, weighted, on detached logits."""
        if not self.config.adversarial:
            return {}
        s, t = widen(student.logits.detach()), widen(teacher.logits.detach())
        score = self.discriminator
        terms = {"discriminator": self.config.critic * critic_loss(score(s), score(t), self.config.game)}
        if self.config.game == "wgan-gp" and self.config.penalty:
            alpha = torch.rand(s.shape[0], 1, 1, 1, device=s.device, dtype=s.dtype)
            weight = self.config.critic * self.config.penalty
            terms["penalty"] = weight * gradient_penalty(score, s, t, alpha)
        return terms
