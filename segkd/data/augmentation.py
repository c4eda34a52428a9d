"""Random scale, crop with padding, flip and blur of one image and its label; normalising of a batch.

Order as in CIRKD: scale (image bilinear, label nearest), pad bottom and right, crop, flip; blur as in AICSD and AttnFD,
but of the picture alone, so that no padding bleeds into it. Sources: papers/protocols, section 2.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy.random import Generator
from PIL import Image, ImageFilter
from torch import Tensor

from segkd.config.recipe import Augmentation, Normalise, Scale
from segkd.data.resize import Size, resize_image, resize_label, scaled_size

Box = tuple[int, int, int, int]  # top, left, bottom, right of the picture within the crop


class Sample(NamedTuple):
    """One training crop: image (h, w, 3) and label (h, w), uint8; outside `box` there is only padding."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    box: Box


class _Draws(NamedTuple):
    """Six uniform numbers in [0, 1), always all drawn: changing one setting never shifts the meaning of another."""

    scale: float
    top: float
    left: float
    flip: float
    blur: float
    radius: float


def augment(
    image: UInt8[np.ndarray, "H W 3"],
    label: UInt8[np.ndarray, "H W"],
    config: Augmentation,
    input_scale: float,
    rng: Generator,
) -> Sample:
    """One random crop of `config.crop`; reads only the part of `image` and `label` that the crop shows.

    `input_scale` multiplies the random scale. Padding holds 0 in the image (see `normalise`) and `config.pad_label` in
    the label.
    """
    draws = _Draws(*rng.random(6).tolist())
    size = random_size((label.shape[0], label.shape[1]), config.scale, input_scale, draws.scale)
    height, width = min(config.crop[0], size[0]), min(config.crop[1], size[1])
    top, left = _integer(draws.top, size[0] - height + 1), _integer(draws.left, size[1] - width + 1)
    window = (top, left, height, width)
    picture = _blurred(resize_image(image, size, window), config, draws)
    classes = resize_label(label, size, window)
    return _placed(picture, classes, config, flip=draws.flip < config.flip)


def random_size(size: Size, scale: Scale, input_scale: float, draw: float) -> Size:
    """Size (height, width) after the random scale that `draw` in [0, 1) chooses.

    factor: uniform in [low, high], or on the grid low, low + step, ...; short_side: an integer number of pixels.
    """
    step = 1.0 if scale.kind == "short_side" and scale.step is None else scale.step
    if step is None:
        value = scale.low + draw * (scale.high - scale.low)
    else:
        value = scale.low + step * _integer(draw, math.floor((scale.high - scale.low) / step + 1e-6) + 1)
    factor = value / min(size) if scale.kind == "short_side" else value
    return scaled_size(size, factor * input_scale)


def _integer(draw: float, count: int) -> int:
    """Uniform integer in [0, count) from a uniform number in [0, 1)."""
    return min(int(draw * count), count - 1)


def _blurred(picture: UInt8[np.ndarray, "h w 3"], config: Augmentation, draws: _Draws) -> UInt8[np.ndarray, "h w 3"]:
    if draws.blur >= config.blur.probability:
        return picture
    low, high = config.blur.radius
    blur = ImageFilter.GaussianBlur(low + draws.radius * (high - low))
    return np.asarray(Image.fromarray(picture).filter(blur), dtype=np.uint8)


def _placed(
    picture: UInt8[np.ndarray, "h w 3"], classes: UInt8[np.ndarray, "h w"], config: Augmentation, *, flip: bool
) -> Sample:
    """Pad bottom and right to the crop's size, then mirror left and right where `flip`."""
    height, width = classes.shape
    image = np.zeros((*config.crop, 3), np.uint8)
    label = np.full(config.crop, config.pad_label, np.uint8)
    image[:height, :width], label[:height, :width] = picture, classes
    if not flip:
        return Sample(image, label, (0, 0, height, width))
    mirrored = torch.from_numpy(image).flip(1).numpy()  # a tenth of numpy's time, whose inner loop is 3 bytes long
    return Sample(mirrored, label[:, ::-1], (0, config.crop[1] - width, height, config.crop[1]))


def normalise(
    images: UInt8[Tensor, "b 3 h w"], boxes: Int64[Tensor, "b 4"] | None, config: Augmentation
) -> Float32[Tensor, "b 3 h w"]:
    """(x / divide - mean) / std per channel, in `config.normalise`'s channel order, on the images' device.

    Outside `boxes` (None: no padding) the result is 0 for pad_image "mean"; for "black" it is what black becomes. The
    result is channels-last; it costs least where `images` are, too. `boxes` on the CPU cost no waiting for a GPU.
    """
    batch, _, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1)
    if config.normalise.order == "bgr":
        pixels = pixels.flip(3)
    mean, std = _statistics(config.normalise, width, images.device)
    rows = pixels.flatten(2).to(torch.float32).div_(config.normalise.divide).sub_(mean).div_(std)
    result = rows.view(batch, height, width, 3).permute(0, 3, 1, 2)
    if boxes is not None and config.pad_image == "mean":
        for image, (top, left, bottom, right) in zip(result, boxes.tolist(), strict=True):
            for padding in (image[:, :top], image[:, bottom:], image[:, :, :left], image[:, :, right:]):
                padding.zero_()
    return result


@functools.lru_cache(maxsize=64)
def _statistics(rule: Normalise, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every number in a row of `width` pixels: one long run of memory, not 3 short ones.

    Kept, since a copy to a GPU at every step would make the host wait.
    """
    mean, std = (torch.tensor(values, device=device).repeat(width) for values in (rule.mean, rule.std))
    return mean, std
