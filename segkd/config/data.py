"""Data sets as params.yaml names them: one closed model per kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segkd.config.base import Closed


class DigitsData(Closed):
    """`digits`: scenes drawn from scikit-learn's handwritten digits; a pure function of these values."""

    kind: Literal["digits"]
    seed: int = Field(0, ge=0)
    size: int = Field(48, ge=16, le=512, description="height and width of a scene, pixels")
    digits: tuple[int, int] = Field((2, 4), description="fewest and most digits in a scene")
    digit_size: tuple[int, int] = Field((16, 24), description="smallest and largest digit, pixels")
    texture: float = Field(0.5, ge=0, le=1, description="contrast of the textured background")
    contrast: float = Field(0.1, ge=0, lt=1, description="least gap between digit and background, of full scale")
    noise: float = Field(0.05, ge=0, le=1, description="standard deviation of the pixel noise, of full scale")
    scenes: dict[Literal["train", "val", "test"], Annotated[int, Field(gt=0)]] = Field(
        {"train": 1000, "val": 100, "test": 200}
    )

    @model_validator(mode="after")
    def _ranges(self) -> DigitsData:
        if self.digits[0] > self.digits[1] or self.digits[0] < 1:
            raise ValueError(f"digits must be (fewest, most) with 1 <= fewest <= most, got {self.digits}")
        if self.digit_size[0] > self.digit_size[1] or self.digit_size[1] > self.size:
            raise ValueError(f"digit_size must be (smallest, largest) within size {self.size}, got {self.digit_size}")
        return self


class CamVidData(Closed):
    """`camvid`: the 11-class, 480 x 360 version of CamVid, 367/101/233 images."""

    kind: Literal["camvid"]


class FolderData(Closed):
    """`folder`: a user's own images and label PNGs, described by a small YAML in the same folder."""

    kind: Literal["folder"]
    root: str = Field(description="the folder, relative to the project or absolute")
    description: str = Field("dataset.yaml", description="YAML with classes, colours, ignore id, in that folder")


class CityscapesData(Closed):
    """`cityscapes`: fine annotations, 19 classes, 2048 x 1024, 2975/500 images; an account of one's own is needed."""

    kind: Literal["cityscapes"]


class VocData(Closed):
    """`voc`: Pascal VOC 2012 segmentation, 21 classes, 1464/1449 images."""

    kind: Literal["voc"]


class VocAugData(Closed):
    """`voc-aug`: VOC 2012 with the masks of SBD, 10 582/1449 images; the list is made from both, not downloaded."""

    kind: Literal["voc-aug"]


class ADE20KData(Closed):
    """`ade20k`: SceneParsing benchmark, 150 classes, 20 210/2000 images."""

    kind: Literal["ade20k"]


class ContextData(Closed):
    """`context`: Pascal Context, 4998/5105 images."""

    kind: Literal["context"]
    background: bool = Field(True, description="true: 60 classes; false: 59, background ignored")


class CocoStuffData(Closed):
    """`coco-stuff`: COCO-Stuff 164k, 171 classes, 118 287/5000 images."""

    kind: Literal["coco-stuff"]


DatasetConfig = Annotated[
    DigitsData
    | CamVidData
    | FolderData
    | CityscapesData
    | VocData
    | VocAugData
    | ADE20KData
    | ContextData
    | CocoStuffData,
    Field(discriminator="kind"),
]
