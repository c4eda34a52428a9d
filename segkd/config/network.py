"""Networks as params.yaml names them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from segkd.config.base import Closed

Backbone = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenetv2",
    "xception41",  # as the paper draws it
    "xception41-released",  # as the authors trained it, and as its ImageNet weights need it
    "mit-b0",
    "mit-b4",
]
Head = Literal["deeplabv3", "deeplabv3-no-aspp", "deeplabv3plus", "pspnet", "fcn", "segformer"]


class NetworkConfig(Closed):
    """Backbone + head. Widths and rates follow the papers' protocols; `width` scales all channels for small studies."""

    head: Head
    backbone: Backbone
    stem: Literal["conv7", "deep", "conv3"] = Field(
        "conv7",
        description="conv7: 7x7 stride 2 + pool; deep: three 3x3 + pool; conv3: one 3x3, no pool (tiny images)",
    )
    output_stride: Literal[4, 8, 16, 32] = 8
    multi_grid: tuple[int, ...] | None = Field(None, description="dilation factors of the last stage's blocks")
    width: float = Field(1.0, gt=0, le=2, description="factor on every channel count")
    head_channels: int = Field(256, ge=4, description="channels of the head's own maps, before `width`")
    auxiliary: bool = Field(False, description="FCN head on stage 3, for a loss of its own")
    attention: Literal["none", "cbam"] = Field("none", description="CBAM in the forward path (AttnFD's teacher)")
    pretrained: str | None = Field(None, description="name of ImageNet weights in the catalogue, or none")

    @model_validator(mode="after")
    def _fits(self) -> NetworkConfig:
        if self.auxiliary and not self.backbone.startswith("resnet"):
            raise ValueError("auxiliary heads exist for ResNets only (protocols, section 1.1): set auxiliary: false")
        if self.output_stride == 4 and self.stem != "conv3":
            raise ValueError("output_stride 4 needs stem: conv3, since the other stems alone already divide by 4")
        if self.pretrained and self.width != 1.0:
            raise ValueError("pretrained weights exist for width 1.0 only: set width: 1.0 or pretrained: null")
        return self
