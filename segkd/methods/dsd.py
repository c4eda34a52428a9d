"""DSD: Feng et al., "Double Similarity Distillation for Semantic Image Segmentation", TIP 2021, arXiv 2107.08591.

There is no code by the authors. `paper` follows the text (the weight of its psd term is not known: 0.1 is this
project's choice), `released` the re-implementation in CIRKD's repository, which produced DSD's published rows there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import filled, refuse_idle, require_stride
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.networks.resize import bilinear
from segkd.ops.categories import category_distance, pooled_category_distance
from segkd.ops.energy import channel_energy
from segkd.ops.precision import full_precision, widen
from segkd.ops.shapes import require_same
from segkd.ops.unit import unit

Maps = Sequence[Float[Tensor, "b c h w"]]
EPSILON = 1e-4  # 1e-12 would turn the rounding noise of constant maps into a direction
TEMPERATURE = 4.0


def psd_loss(student: Maps, teacher: Maps) -> Float[Tensor, ""]:
    """Mean over images and ADJACENT pairs (l, l + 1) of sum over positions of (r_s - r_t)^2.

    r = (a_{l+1} - a_l) / max(||.||, 1e-4), a_l = norm_N(resize(sum over channels of F_l^2)): attention differences
    between layers (section III-B). Maps of a pair are compared at the smallest height and width of the four; channels
    and sizes may all differ.
    """
    _require_levels(student, teacher)
    energies = [[_energy(x) for x in maps] for maps in (student, [x.detach() for x in teacher])]
    total = widen(student[0].new_zeros(()))
    for (s0, s1), (t0, t1) in zip(pairwise(energies[0]), pairwise(energies[1]), strict=True):
        sides = [x.shape[-2:] for x in (s0, s1, t0, t1)]
        size = (min(height for height, _ in sides), min(width for _, width in sides))
        r_s, r_t = (_residual(first, second, size) for first, second in ((s0, s1), (t0, t1)))
        total = total + (r_s - r_t).square().sum(1).mean()
    return total / (len(student) - 1)


def psd_released_loss(student: Maps, teacher: Maps) -> Float[Tensor, ""]:
    """Mean over ALL pairs n < m of the mean over images and positions of (r_s - r_t)^2.

    r = norm_N(a_m - a_n), a_l = norm_N(mean over channels of F_l^2). All maps must have one height and width.
    """
    _require_levels(student, teacher)
    for x in (*student, *teacher):
        require_same(student[0], x, channels=False, where="dsd: maps of student and teacher, preset released")
    levels = [
        [unit(channel_energy(x) / x.shape[1], 1) for x in maps] for maps in (student, [t.detach() for t in teacher])
    ]
    errors = [
        (unit(s_m - s_n, 1) - unit(t_m - t_n, 1)).square().mean()
        for (s_n, s_m), (t_n, t_m) in zip(combinations(levels[0], 2), combinations(levels[1], 2), strict=True)
    ]
    return torch.stack(errors).mean()


def csd_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, temperature: float = TEMPERATURE
) -> Float[Tensor, ""]:
    """Mean over images and class pairs of (M_s - M_t)^2, M = correlations of the maps of softmax_classes(z / T).

    Class maps are normalised over positions, M = U U' is classes x classes (section III-C).
    """
    _require_classes(student, teacher)
    images, classes = student.shape[:2]
    return category_distance(student, teacher, temperature=temperature, scale=1 / (images * classes**2))


def csd_released_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], *, temperature: float = TEMPERATURE
) -> Float[Tensor, ""]:
    """The same mean with M = P P', P = softmax over POSITIONS of 2 x 2 average-pooled (ceil) logits / T: about 0."""
    require_same(student, teacher, channels=True, where="dsd: logits of student and teacher")
    images, classes = student.shape[:2]
    return pooled_category_distance(student, teacher, temperature=temperature, scale=1 / (images * classes**2))


def _energy(x: Tensor) -> Tensor:
    return channel_energy(x).view(x.shape[0], *x.shape[-2:])


def _residual(first: Tensor, second: Tensor, size: tuple[int, int]) -> Tensor:
    """norm_N(second) - norm_N(first) at `size`, itself of length 1 unless it is next to nothing. (B, N)."""
    with full_precision(first):
        a, b = (unit(bilinear(x[:, None], size, align_corners=False).flatten(1), 1) for x in (first, second))
    difference = b - a
    return difference / torch.linalg.vector_norm(difference, dim=1, keepdim=True).clamp_min(EPSILON)


def _require_levels(student: Maps, teacher: Maps) -> None:
    if len(student) != len(teacher) or len(student) < 2:
        raise ConfigError(f"dsd: expected two or more maps of each network, found {len(student)} and {len(teacher)}")


def _require_classes(student: Tensor, teacher: Tensor) -> None:
    if student.shape[:2] != teacher.shape[:2]:
        raise ConfigError(
            "dsd: expected logits of one batch and equal classes, "
            f"found student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )


class DSDConfig(MethodConfig):
    """Hyper-parameters of `dsd`."""

    psd: float = Field(0.1, ge=0, description="weight of the pixel-wise term; 0 = off; released 1000")
    csd: float = Field(10.0, ge=0, description="weight of the category-wise term; 0 = off")
    temperature: float = Field(TEMPERATURE, gt=0, description="T of the category-wise term")

    @model_validator(mode="before")
    @classmethod
    def _weight_of_preset(cls, values: Any) -> Any:
        released = isinstance(values, dict) and values.get("preset") == "released"
        return filled(values, {"psd": 1000.0} if released else {})

    @model_validator(mode="after")
    def _idle_keys(self) -> DSDConfig:
        refuse_idle(self, {"temperature"}, idle=self.csd == 0, why="csd is 0")
        return self


@register("dsd")
class DSD(Method):
    """How attention changes from layer to layer, and how classes correlate, as in the teacher.

    Maps of the pixel-wise term: backbone stages 2, 3, 4 and the embedding (`paper`); auxiliary logits, or logits where
    a network has no auxiliary head, the embedding and logits (`released`; for networks without that head one residual
    is then identically 0, as it was).

    Cost: O(B N d) for the attention maps, O(B N C^2) for the class correlations.
    """

    Config = DSDConfig
    needs = frozenset({"logits", "embedding", "stages", "auxiliary"})
    config: DSDConfig

    def __init__(self, config: DSDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        if config.preset == "released":
            for one in (*_released_maps(student), *_released_maps(teacher)):
                require_stride(student.logits, one, field="logits, auxiliary logits and embedding", method="dsd")

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"psd", "csd"}, weighted."""
        config, terms = self.config, {}
        paper = config.preset == "paper"
        if config.psd:
            chosen = _paper_maps if paper else _released_maps
            loss = psd_loss if paper else psd_released_loss
            terms["psd"] = config.psd * loss(list(chosen(student)), list(chosen(teacher)))
        if config.csd:
            loss_csd = csd_loss if paper else csd_released_loss
            terms["csd"] = config.csd * loss_csd(student.logits, teacher.logits, temperature=config.temperature)
        return terms


def _paper_maps(outputs: Outputs) -> Iterator[Tensor]:
    yield from (stage.post for stage in outputs.stages[1:])
    yield outputs.embedding


def _released_maps(outputs: Any) -> Iterator[Any]:
    """Of an Outputs, tensors; of a Channels, (channels, stride)."""
    yield outputs.logits if outputs.auxiliary is None else outputs.auxiliary
    yield outputs.embedding
    yield outputs.logits
