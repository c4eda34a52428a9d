"""KA: He et al., "Knowledge Adaptation for Efficient Semantic Segmentation", CVPR 2019, arXiv 1903.04688.

There is no released code; the definitions follow the paper as far as it is known (preset `paper` only).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from segkd.errors import ConfigError, explain
from segkd.methods.base import Method, MethodConfig, Pretraining, Progress
from segkd.methods.checks import refuse_idle
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Map, Outputs
from segkd.networks.parts import BatchNorm
from segkd.ops.affinity import affinity_row_norms
from segkd.ops.precision import widen
from segkd.ops.shapes import require_same
from segkd.ops.vectors import direction_distance

_STRIDES = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2)}
SPARSITY = 1e-7


def sparsity_loss(code: Float[Tensor, "b l h w"]) -> Float[Tensor, ""]:
    """Mean over images of the sum of |E(F)| over one image (section 3.1, before its factor alpha = 1e-7)."""
    return widen(code).abs().sum() / code.shape[0]


def reconstruction_loss(teacher: Float[Tensor, "b c h w"], decoded: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Mean over all elements of (F - D(E(F)))^2 (section 3.1)."""
    require_same(decoded, teacher, channels=True, where="ka: autoencoder's output against its input")
    return (widen(decoded) - widen(teacher.detach())).square().mean()


def adaptation_loss(student: Float[Tensor, "b l h w"], teacher: Float[Tensor, "b l h w"]) -> Float[Tensor, ""]:
    """Mean over images and positions of || norm(C_f(F_s)) - norm(E(F_t)) ||_1, L2 norm over channels (eq. L_adapt).

    p = 1 outside and q = 2 inside, both norms along the channels of one position.
    """
    require_same(student, teacher, channels=True, where="ka: adapted student feature against the teacher's code")
    positions = student.numel() // student.shape[1]
    return direction_distance(student, teacher, power=1, scale=1 / positions)


def affinity_loss(student: Float[Tensor, "b l h w"], teacher: Float[Tensor, "b l h w"]) -> Float[Tensor, ""]:
    """Mean over images and rows i of ||A_s[i] - A_t[i]||_2 / sqrt(m), A = cosines between the m positions (eq. L_aff).

    student: C_a(F_s); teacher: E(F_t). A row difference of 0 has gradient 0.
    """
    require_same(student, teacher, channels=True, where="ka: affinity of student feature and teacher's code")
    images, positions = student.shape[0], student.shape[2:].numel()
    return affinity_row_norms(student, teacher, scale=1 / (images * positions * positions**0.5))


def _conv(into: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False), BatchNorm(out), nn.ReLU(inplace=True)
    )


class Encoder(nn.Sequential):
    """Three 3x3 conv-BN-ReLU, C_t -> C_t / 2 -> C_l -> C_l; its strides bring the teacher's map to the student's."""

    def __init__(self, channels: int, latent: int, strides: tuple[int, ...]) -> None:
        widths = (channels, max(1, channels // 2), latent, latent)
        super().__init__(*(_conv(widths[i], widths[i + 1], stride) for i, stride in enumerate(strides)))


class Decoder(nn.Module):
    """The encoder mirrored: three transposed 3x3 convolutions, BN-ReLU between, linear at the end."""

    def __init__(self, channels: int, latent: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        widths = (latent, latent, max(1, channels // 2), channels)
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(widths[i], widths[i + 1], 3, stride=stride, padding=1, bias=i == len(strides) - 1)
            for i, stride in enumerate(reversed(strides))
        )
        self.norms = nn.ModuleList(BatchNorm(width) for width in widths[1:-1])

    def forward(self, code: Tensor, sizes: list[torch.Size]) -> Tensor:
        """`sizes`: (height, width) at the encoder's input and after each of its convolutions but the last."""
        for i, (conv, size) in enumerate(zip(self.convs, reversed(sizes), strict=True)):
            code = conv(code, output_size=list(size))
            if i < len(self.norms):
                code = torch.relu(self.norms[i](code))
        return code


class KAConfig(MethodConfig):
    """Hyper-parameters of `ka`."""

    preset: Literal["paper"] = Field("paper", description="ka has no released code")
    adaptation: float = Field(50.0, ge=0, description="weight beta of the adaptation term; 0 = off")
    affinity: float = Field(1.0, ge=0, description="weight gamma of the affinity term; 0 = off")
    latent: int = Field(128, ge=1, description="channels C_l of the autoencoder's code")
    sparsity: float = Field(SPARSITY, ge=0, description="weight alpha of the code's L1 norm (printed as 10e-7)")
    pretrain_epochs: float = Field(1.0, gt=0, description="epochs of the autoencoder")
    pretrain_lr: float = Field(0.1, gt=0, description="learning rate of the autoencoder")
    pretrain_momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum of the autoencoder (inferred)")
    pretrain_weight_decay: float = Field(1e-4, ge=0, description="weight decay of the autoencoder (printed as 10e-4)")

    @model_validator(mode="after")
    def _idle_keys(self) -> KAConfig:
        keys = {name for name in type(self).model_fields if name.startswith("pretrain_")} | {"latent", "sparsity"}
        off = self.adaptation == 0 and self.affinity == 0
        refuse_idle(self, keys, idle=off, why="adaptation and affinity are 0")
        return self


class Autoencoder(Pretraining):
    """The knowledge translator: D(E(F)) ~ F with a sparse code, trained on the frozen teacher's embedding."""

    def __init__(self, config: KAConfig, student: Channels, teacher: Channels) -> None:
        super().__init__()
        strides = encoder_strides(student.embedding, teacher.embedding)
        self.encoder = Encoder(teacher.embedding.channels, config.latent, strides)
        self.decoder = Decoder(teacher.embedding.channels, config.latent, strides)
        self.sparsity = config.sparsity
        self.epochs, self.lr = config.pretrain_epochs, config.pretrain_lr
        self.momentum, self.weight_decay = config.pretrain_momentum, config.pretrain_weight_decay

    def translate(self, feature: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """(code, reconstruction) of a feature map; the reconstruction has exactly the feature's size."""
        sizes, code = [], feature
        for layer in self.encoder:
            sizes.append(code.shape[-2:])
            code = layer(code)
        return code, self.decoder(code, sizes)

    def forward(self, teacher: Outputs) -> dict[str, Tensor]:
        """{"reconstruction": mean squared error, "sparsity": alpha * L1 norm of the code per image}."""
        feature = teacher.embedding.detach()
        code, decoded = self.translate(feature)
        terms = {"reconstruction": reconstruction_loss(feature, decoded)}
        if self.sparsity:
            terms["sparsity"] = self.sparsity * sparsity_loss(code)
        return terms


def encoder_strides(student: Map, teacher: Map) -> tuple[int, ...]:
    """Strides of the encoder's convolutions; ConfigError where they cannot bring one map to the other."""
    ratio = student.stride / teacher.stride
    if ratio not in _STRIDES:
        raise ConfigError(
            explain(
                "Method 'ka': the encoder cannot bring the teacher's embedding to the size of the student's.",
                expected="student stride / teacher stride in 1, 2, 4, 8",
                found=f"student: input / {student.stride}, teacher: input / {teacher.stride}, ratio {ratio:g}",
                where="params.yaml: networks.*.output_stride",
                fix="give the student a larger output_stride than the teacher, or the same",
            )
        )
    return _STRIDES[int(ratio)]


@register("ka")
class KA(Method):
    """Adaptation of the student's embedding to the teacher's translated one, and affinity between positions.

    Cost: O(B N^2 C_l) for the affinity, by blocks of rows, so that no N x N matrix is kept; O(B N d_t^2) for the
    frozen encoder.
    """

    Config = KAConfig
    needs = frozenset({"embedding"})
    config: KAConfig

    def __init__(self, config: KAConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        strides = encoder_strides(student.embedding, teacher.embedding)
        channels, latent = student.embedding.channels, config.latent
        if config.adaptation:
            self.feature_adapter = _conv(channels, latent, 1)
        if config.affinity:
            self.affinity_adapter = nn.Conv2d(channels, latent, 3, padding=1)
        self.encoder = Encoder(teacher.embedding.channels, latent, strides).requires_grad_(False).eval()
        self._adopted = False

    @classmethod
    def pretraining(cls, config: MethodConfig, student: Channels, teacher: Channels, classes: int) -> Autoencoder:
        """The autoencoder, untrained."""
        assert isinstance(config, KAConfig)
        return Autoencoder(config, student, teacher)

    def adopt(self, pretrained: Pretraining) -> None:
        """Take over the encoder's weights and running statistics, frozen; to be called at every start."""
        assert isinstance(pretrained, Autoencoder)
        self.encoder.load_state_dict(pretrained.encoder.state_dict())
        self._adopted = True

    def train(self, mode: bool = True) -> KA:
        """As nn.Module.train, but the encoder always stays in eval mode: it belongs to the teacher."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"adaptation", "affinity"}, weighted; RuntimeError before `adopt`."""
        if not self._adopted:
            raise RuntimeError("KA.forward before KA.adopt(autoencoder): the encoder is untrained")
        with torch.no_grad():
            code = self.encoder(teacher.embedding)
        terms = {}
        if self.config.adaptation:
            adapted = self.feature_adapter(student.embedding)
            terms["adaptation"] = self.config.adaptation * adaptation_loss(adapted, code)
        if self.config.affinity:
            related = self.affinity_adapter(student.embedding)
            terms["affinity"] = self.config.affinity * affinity_loss(related, code)
        return terms
