"""CIRKD: Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation", CVPR 2022.

arXiv 2204.06986. Preset `released` keeps what the authors' code does otherwise: it stores pixels of any class in a
class's memory, resets the ring instead of wrapping it, starts from random vectors and draws from all slots.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle, require_stride
from segkd.methods.kd import kd_loss
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.networks.parts import BatchNorm
from segkd.ops.memory import Ring, choose, region_means
from segkd.ops.precision import widen
from segkd.ops.processes import divisor, gathered
from segkd.ops.relations import memory_divergence, pairs_divergence
from segkd.ops.shapes import nearest_labels, require_same
from segkd.ops.unit import split

IGNORE = 255
POOLED_FROM = 256  # released code pools 4 x 4 where height and width are at least this


def minibatch_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b d h w"],
    *,
    temperature: float = 0.1,
    group_size: int | None = 2,
    pool: int = 1,
) -> Float[Tensor, ""]:
    """Mean over groups, ordered pairs (i, j) of a group's images and rows of KL(rows of t || rows of s), nats (eq. 5).

    Rows: norm(f_i)' norm(f_j) / temperature. Groups are runs of `group_size` images (None: all), the last may be
    shorter, all weigh the same. pool: average pooling before (released code: 4 for large maps), ceil.
    """
    require_same(student, teacher, channels=False, where="cirkd: embeddings of student and teacher")
    if pool > 1:
        student, teacher = (functional.avg_pool2d(widen(x), pool, ceil_mode=True) for x in (student, teacher))
    images = student.shape[0]
    size = group_size or images
    groups = tuple(min(size, images - first) for first in range(0, images, size))
    return pairs_divergence(student, teacher, temperature=temperature, groups=groups)


def memory_loss(
    student: Float[Tensor, "b d h w"],
    teacher: Float[Tensor, "b d h w"],
    labels: Int[Tensor, "b i j"],
    contrast: Float[Tensor, "k d"],
    written: Bool[Tensor, " k"] | None = None,
    *,
    temperature: float = 0.1,
    kd_temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean over labelled positions of KL(softmax(v_t P' / tau) || softmax(v_s P' / tau)), nats (eq. 9 and 12).

    student: the projector's output; v = norm over channels; P: `contrast`, unit rows of the teacher's memory, those not
    `written` left out. Labels come to the map by nearest; 255 is ignored. Nothing labelled, or no contrast: 0 with zero
    gradient. kd_temperature softens both distributions further, times its square.
    """
    require_same(student, teacher, channels=True, where="cirkd: projected student and teacher embedding")
    valid = (nearest_labels(labels, (student.shape[-2], student.shape[-1])) != IGNORE).flatten(1)
    weight = valid.to(widen(student[:0]).dtype) / divisor(valid.sum())
    live = None if written is None else written.to(weight.dtype)
    return memory_divergence(
        student,
        teacher,
        contrast,
        weight,
        live,
        temperature=temperature * kd_temperature,
        scale=kd_temperature**2,
    )


class Projector(nn.Sequential):
    """conv1x1(C_s -> C_t) - BN - ReLU - conv1x1(C_t -> C_t), no biases: trained with the student."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__(
            nn.Conv2d(student, teacher, 1, bias=False),
            BatchNorm(teacher),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher, teacher, 1, bias=False),
        )


class Memory(nn.Module):
    """The teacher's pixel and region embeddings, a ring of unit vectors per class each."""

    def __init__(self, config: CIRKDConfig, channels: int, classes: int) -> None:
        super().__init__()
        released = config.preset == "released"
        wrap: Literal["modulo", "reset"] = "reset" if released else "modulo"
        self.classes, self.per_class = classes, min(config.per_class, config.pixel_memory)
        self.pick: Literal["own", "first"] = "first" if released else "own"
        self.pixel = Ring(classes, config.pixel_memory, channels, wrap) if config.pixel else None
        self.region = Ring(classes, config.region_memory, channels, wrap) if config.region else None

    @torch.no_grad()
    def update(
        self,
        teacher: Float[Tensor, "b d h w"],
        labels: Int[Tensor, "b i j"],
        generator: torch.Generator | None = None,
        chosen: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Append a batch: per image and class 1 region and up to `per_class` random pixels. Section 3.3.

        labels: at any size, brought to the map by nearest. chosen: (positions, numbers) instead of a random choice.
        """
        small = nearest_labels(labels, (teacher.shape[-2], teacher.shape[-1])).flatten(1)
        unit, _ = split(teacher.flatten(2), 1)
        if self.pixel is not None:
            positions, count = chosen or choose(small, self.classes, self.per_class, self.pick, generator)
            for image in range(len(unit)):
                self.pixel.write(unit[image].T[positions[image]], count[image])
        if self.region is not None:
            means, present = region_means(unit, small, self.classes)
            for image in range(len(unit)):
                self.region.write(means[image, :, None], present[image].long())


class CIRKDConfig(MethodConfig):
    """Hyper-parameters of `cirkd`."""

    kd: float = Field(1.0, ge=0, description="weight of kd (T 1, pixel mean); 0 = off")
    minibatch: float = Field(1.0, ge=0, description="weight alpha of the relations within the batch; 0 = off")
    pixel: float = Field(0.1, ge=0, description="weight beta of the pixel memory; 0 = off (VOC: 0.01)")
    region: float = Field(0.1, ge=0, description="weight gamma of the region memory; 0 = off (VOC: 0.01)")
    temperature: float = Field(0.1, gt=0, description="tau of all similarities")
    group_size: int | None = Field(
        2, ge=1, description="images that are related to each other; null = the whole local batch (published: 2)"
    )
    pixel_memory: int = Field(20_000, ge=1, description="pixel embeddings kept per class")
    region_memory: int = Field(2_000, ge=1, description="region embeddings kept per class")
    pixel_contrast: int = Field(4_096, ge=1, description="pixel embeddings compared with, over all classes, about")
    region_contrast: int = Field(1_024, ge=1, description="region embeddings compared with, over all classes, about")
    per_class: int = Field(16, ge=1, description="pixels remembered per image and class")

    @model_validator(mode="after")
    def _idle_keys(self) -> CIRKDConfig:
        refuse_idle(self, {"group_size"}, idle=self.minibatch == 0, why="minibatch is 0")
        keys = {"pixel_memory", "pixel_contrast", "per_class"}
        refuse_idle(self, keys, idle=self.pixel == 0, why="pixel is 0")
        refuse_idle(self, {"region_memory", "region_contrast"}, idle=self.region == 0, why="region is 0")
        off = not (self.minibatch or self.pixel or self.region)
        refuse_idle(self, {"temperature"}, idle=off, why="minibatch, pixel and region are 0")
        if self.preset == "released" and not (self.pixel or self.region):
            raise ValueError("preset released differs from paper in the memory terms, and pixel and region are 0")
        return self


@register("cirkd")
class CIRKD(Method):
    """Relations of pixels to other images' pixels, and to a memory of pixels and regions, as the teacher sees them.

    Cost: O(B G N^2 d) among the G images of a group and O(B N K d_t) against K entries of the memory (about 5120),
    by blocks of rows; O(B N d_t (d_s + d_t)) for the projector. The memory itself is C d_t (pixel_memory +
    region_memory) numbers.
    """

    Config = CIRKDConfig
    needs = frozenset({"logits", "embedding"})
    config: CIRKDConfig
    seed: Tensor

    def __init__(self, config: CIRKDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.logits, teacher.logits, field="logits", method="cirkd")
        require_stride(student.embedding, teacher.embedding, field="the embedding", method="cirkd")
        if config.pixel or config.region:
            self.projector = Projector(student.embedding.channels, teacher.embedding.channels)
            self.memory = Memory(config, teacher.embedding.channels, classes)
            self.register_buffer("seed", torch.randint(2**48, ()))  # equal in all processes: so are their memories
            self._known_seed: int | None = None  # the same, read once: reading makes host and device wait
            self.register_load_state_dict_post_hook(_forget_seed)  # type: ignore[no-untyped-call]

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"kd", "minibatch", "pixel", "region"}, weighted. The memory is filled before the loss is computed."""
        config, terms = self.config, {}
        if config.kd:
            terms["kd"] = config.kd * kd_loss(student.logits, teacher.logits)
        if config.minibatch:
            terms["minibatch"] = config.minibatch * minibatch_loss(
                student.embedding,
                teacher.embedding,
                temperature=config.temperature,
                group_size=config.group_size,
                pool=self._pool(student.embedding),
            )
        return terms | self._memory_terms(student, teacher, labels, progress)

    def _pool(self, embedding: Tensor) -> int:
        large = min(embedding.shape[-2:]) >= POOLED_FROM
        return 4 if large and self.config.preset == "released" else 1

    def _memory_terms(
        self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        config, terms = self.config, {}
        if not (config.pixel or config.region):
            return {}
        if self._known_seed is None:
            self._known_seed = int(self.seed)
        generator = torch.Generator().manual_seed(self._known_seed + progress.iteration)
        self.memory.update(gathered(teacher.embedding), gathered(labels), generator)
        projected = self.projector(student.embedding)
        sides: dict[str, tuple[float, Ring | None, int]] = {
            "pixel": (config.pixel, self.memory.pixel, config.pixel_contrast),
            "region": (config.region, self.memory.region, config.region_contrast),
        }
        for name, (weight, ring, contrast) in sides.items():
            if ring is not None:
                rows, written = ring.draw(contrast // self.classes + 1, generator)
                loss = memory_loss(projected, teacher.embedding, labels, rows, written, temperature=config.temperature)
                terms[name] = weight * loss
        return terms


def _forget_seed(method: nn.Module, _: object) -> None:
    assert isinstance(method, CIRKD)
    method._known_seed = None
