"""Recipes: data set + training protocol + evaluation rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segkd.config.base import Closed

Probability = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[int, Field(gt=0)]


class Scale(Closed):
    """Random resize. `factor`: of the image's size, uniform or in steps. `short_side`: to a short side in pixels."""

    kind: Literal["factor", "short_side"] = "factor"
    low: float = Field(1.0, gt=0)
    high: float = Field(1.0, gt=0)
    step: float | None = Field(None, gt=0, description="grid of factors; none = continuous")

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.low > self.high:
            raise ValueError(f"scale needs low <= high, got {self.low} > {self.high}")
        return self


class Blur(Closed):
    """Gaussian blur with probability p and a radius drawn uniformly, pixels (AICSD, AttnFD: p 0.5, U(0, 1))."""

    probability: Probability = 0.0
    radius: tuple[float, float] = (0.0, 1.0)


class Normalise(Closed):
    """x -> (x / divide - mean) / std per channel, in the given channel order.

    Default: RGB in [0, 1] with ImageNet's statistics. CIRKD, SKD: order bgr, divide 1, std 1 and
    mean (104.00698793, 116.66876762, 122.67891434).
    """

    order: Literal["rgb", "bgr"] = "rgb"
    divide: float = Field(255.0, gt=0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Augmentation(Closed):
    """Random scale -> pad and crop -> flip -> blur -> normalise, all drawn from (seed, epoch, index)."""

    crop: tuple[Length, Length] = Field(description="height, width of the crop, pixels")
    scale: Scale = Scale()
    flip: Probability = 0.5
    blur: Blur = Blur()
    normalise: Normalise = Normalise()
    pad_image: Literal["mean", "black"] = Field("mean", description="mean: 0 after normalising; black: 0 before it")
    pad_label: int = Field(
        255, ge=0, le=255, description="255 = ignored; 0 = the slip of AICSD's and AttnFD's code on VOC"
    )


class Optimiser(Closed):
    """SGD or AdamW with learning-rate factors for parts of the model."""

    name: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    head_factor: float = Field(1.0, gt=0, description="learning rate of the head over that of the backbone")


class Schedule(Closed):
    """Poly decay per iteration, lr * (1 - i/I)^power, after a linear warm-up."""

    power: float = Field(0.9, ge=0)
    warmup: int = Field(0, ge=0, description="iterations of linear warm-up")
    warmup_factor: float = Field(0.1, gt=0, le=1, description="share of the learning rate at iteration 0")


class Evaluation(Closed):
    """How a network is scored, and which checkpoint is called best."""

    split: Literal["val", "test"] = "val"
    select_split: Literal["val"] = "val"
    select_every: int = Field(0, ge=0, description="iterations between looks at select_split; 0 = never (no best)")
    short_side: int | None = Field(None, gt=0, description="resize image AND label so before scoring (AICSD: 513)")
    absent_classes: Literal["nan", "zero"] = Field("nan", description="zero only where a published number used it")
    averaged_over: int | None = Field(
        None,
        gt=0,
        description="divide the sum of class IoUs by this many classes instead: CIRKD's COCO-Stuff numbers have 182, "
        "11 of which never occur",
    )
    batch: int = Field(1, ge=1)

    @property
    def absent(self) -> Literal["nan", "zero"] | int:
        """What a mean over classes makes of absent ones, as the functions of segkd.evaluation take it."""
        return self.averaged_over or self.absent_classes


class Recipe(Closed):
    """Data set + training protocol. Everything here can change a result; nothing here depends on the machine."""

    dataset: str
    teacher_recipe: str | None = Field(None, description="recipe under which teachers are trained; none = this one")
    iterations: int | None = Field(None, gt=0)
    epochs: int | None = Field(None, gt=0)
    batch: int = Field(gt=0, description="images per update, over all devices and accumulation steps")
    micro_batch: int | None = Field(
        None, gt=0, description="images per forward pass of a process; gradients are accumulated to `batch`"
    )
    input_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="images are resized by this before training and evaluation; labels are scored at their own size",
    )
    augmentation: Augmentation
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    auxiliary_weight: float = Field(
        0.4, ge=0, description="of the auxiliary head's cross-entropy, where a network has one"
    )
    cross_entropy_per_image: bool = Field(
        False,
        description="divide the pixel mean by the batch size (AICSD's and AttnFD's code); once, also where a method's "
        "preset `released` divides by itself",
    )
    teacher_mode: Literal["eval", "train"] = Field(
        "eval",
        description="train: the teacher normalises by the batch and drops out, as in the code of Overhaul, AICSD and "
        "AttnFD; its weights and running statistics still stay as they are",
    )
    still_epochs: int = Field(
        0,
        ge=0,
        description="epochs at the start in which no weight of a student with a teacher moves, only the method's own "
        "(1 in the code of Overhaul, AICSD and AttnFD; networks without teacher are trained by another script there)",
    )
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the whole gradient")
    precision: Literal["float32", "auto"] = Field(
        "auto", description="auto: bf16 autocast on devices that gain from it"
    )
    gpus: int = Field(
        1,
        ge=1,
        description="processes that train one run together, a GPU each (on a CPU machine: all on the CPU), each on its "
        "part of every batch; batch norm of the student goes over the whole batch",
    )
    compile: bool = Field(
        False, description="torch.compile of the networks while training: other kernels, so other last digits"
    )
    determinism: Literal["strict", "fast"] = Field(
        "fast",
        description="strict: also on a GPU two runs end in the same bits, at the cost of slower kernels; on a CPU both "
        "modes do, and their last digits differ",
    )
    threads: int = Field(
        1, ge=1, description="CPU threads of one run; part of the recipe because it orders floating-point sums"
    )
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _length(self) -> Recipe:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give exactly one of iterations and epochs")
        if self.batch % ((self.micro_batch or 1) * self.gpus):
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch or 1}) times gpus "
                f"({self.gpus})"
            )
        return self
