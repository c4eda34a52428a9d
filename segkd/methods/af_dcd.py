"""Af-DCD: Fan et al., "Augmentation-free Dense Contrastive Knowledge Distillation for Efficient Semantic Segmentation",
NeurIPS 2023, arXiv 2312.04168, on stage 4: masked feature mimicking and omni-contrasting of the mimicked feature.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from segkd.errors import ConfigError, explain
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle, require_stride
from segkd.methods.kd import kd_loss
from segkd.methods.mgd import align, generator, mgd_loss, randomly_masked
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.contrast import patch_contrast
from segkd.ops.precision import widen
from segkd.ops.shapes import require_same

Map = Float[Tensor, "b c h w"]


def omni_contrast_loss(
    student: Map, teacher: Map, *, groups: int = 16, patch: int = 4, pool: int = 4, temperature: float = 0.07
) -> Float[Tensor, ""]:
    """Sum over local vectors of their cross-entropy / (B H W), after max-pooling `pool` x `pool`, no overlap.

    Local vectors: the `groups` runs of channels at each position; within a patch of `patch` x `patch` positions the
    student's vector is to be nearest, in L1 distance / T, to the teacher's of the same position and run, against those
    of all other runs at all positions (equations 4 to 6). Maps smaller than a window or patch shrink it; positions
    beyond the last whole patch are left out.
    """
    require_same(student, teacher, channels=True, where="af-dcd: mimicked feature of the student and teacher's feature")
    window = [min(pool, side) for side in student.shape[2:]]
    s, t = (functional.max_pool2d(widen(x), window) for x in (student, teacher.detach()))
    height, width = (min(patch, side) for side in s.shape[2:])
    used = (s.shape[2] // height * height) * (s.shape[3] // width * width)
    scale = 1 / (len(s) * used)
    return patch_contrast(s, t, groups=groups, patch=(height, width), temperature=temperature, scale=scale)


def centre_masked(x: Map) -> Map:
    """`x` with the middle third of its rows and columns zeroed."""
    height, width = x.shape[2:]
    kept = torch.ones(height, width, dtype=torch.bool, device=x.device)
    kept[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = False
    return x * kept


class EnhancedProjector(nn.Module):
    """Mean of two branches: conv3x3 after one and after two conv3x3-ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second, self.near, self.far = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))

    def forward(self, x: Map) -> Map:
        """Same shape as `x`."""
        near = functional.relu(self.first(x))
        far = functional.relu(self.second(near))
        return (self.near(near) + self.far(far)) / 2


class AfDCDConfig(MethodConfig):
    """Hyper-parameters of `af-dcd`."""

    preset: Literal["paper"] = Field("paper", description="af-dcd has one definition")
    feature: float = Field(2e-6, ge=0, description="weight of masked mimicking, sum of squares per image; 0 = off")
    contrast: float = Field(0.005, ge=0, description="weight of the contrastive term; 0 = off")
    kd: float = Field(1.0, ge=0, description="weight of kd (T 1, pixel mean) beside them; 0 = off")
    masking: Literal["random", "centre"] = Field("random", description="random positions, or the middle ninth")
    mask: float = Field(0.75, ge=0, lt=1, description="share of positions that random masking zeroes")
    projector: Literal["enhanced", "plain"] = Field("enhanced", description="two branches, or conv3x3-ReLU-conv3x3")
    groups: int = Field(16, ge=2, description="runs of channels M; must divide the teacher's channels")
    patch: int = Field(4, ge=1, description="side of a patch, positions after pooling")
    pool: int = Field(4, ge=1, description="side of the max-pooling window; 1 = none (CamVid)")
    temperature: float = Field(0.07, gt=0, description="tau of the contrastive term")

    @model_validator(mode="after")
    def _idle_keys(self) -> AfDCDConfig:
        idle = self.feature == self.contrast == 0
        refuse_idle(self, {"masking", "mask", "projector"}, idle=idle, why="feature and contrast are 0")
        refuse_idle(self, {"mask"}, idle=self.masking == "centre", why="masking is centre")
        keys = {"groups", "patch", "pool", "temperature"}
        refuse_idle(self, keys, idle=self.contrast == 0, why="contrast is 0")
        return self


@register("af-dcd")
class AfDCD(Method):
    """A masked, projected feature of the student mimics the teacher's, and contrasts with it in every small patch.

    Cost: O(36 B N d_t^2), the projector's four 3x3 convolutions; O(B N d_t groups patch^2 / pool^2) for the
    contrast, patches of a few at a time.
    """

    Config = AfDCDConfig
    needs = frozenset({"logits", "stages"})
    config: AfDCDConfig

    def __init__(self, config: AfDCDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        ours, theirs = student.stages[3], teacher.stages[3]
        if config.kd:
            require_stride(student.logits, teacher.logits, field="logits", method="af-dcd")
        if config.feature or config.contrast:
            require_stride(ours, theirs, field="stage 4", method="af-dcd")
            self.align = align(ours.channels, theirs.channels)
            projector = EnhancedProjector if config.projector == "enhanced" else generator
            self.projector: nn.Module = projector(theirs.channels)
        if config.contrast and theirs.channels % config.groups:
            raise ConfigError(
                explain(
                    "Method 'af-dcd': the teacher's channels cannot be cut into equal groups.",
                    expected=f"a number of channels that {config.groups} divides",
                    found=f"stage 4 of the teacher has {theirs.channels} channels",
                    where="params.yaml: methods (method: af-dcd), networks.*.width",
                    fix="choose `groups` so that it divides them",
                )
            )

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"feature", "contrast", "kd"}, weighted."""
        config, terms = self.config, {}
        if config.feature or config.contrast:
            mimicked, wanted = self._mimicked(student.stages[3].post), teacher.stages[3].post
            if config.feature:
                terms["feature"] = config.feature * mgd_loss(mimicked, wanted)
            if config.contrast:
                terms["contrast"] = config.contrast * omni_contrast_loss(
                    mimicked,
                    wanted,
                    groups=config.groups,
                    patch=config.patch,
                    pool=config.pool,
                    temperature=config.temperature,
                )
        if config.kd:
            terms["kd"] = config.kd * kd_loss(student.logits, teacher.logits)
        return terms

    def _mimicked(self, feature: Tensor) -> Tensor:
        aligned = self.align(feature)
        masked = (
            centre_masked(aligned) if self.config.masking == "centre" else randomly_masked(aligned, self.config.mask)
        )
        return self.projector(masked)
