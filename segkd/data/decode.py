"""Decode one image or one label file strictly: what could be meant in two ways is a fault, not a guess.

Images: 8-bit RGB, grey (repeated to RGB) or palette. Refused: 16-bit, alpha, CMYK, animations, and a rotation tag
(a label can be meant for the picture as stored or as turned). Published data sets are read as everybody reads them:
pixels as stored whatever the rotation tag, CMYK converted, the first of several pictures.
Labels: 8-bit (or smaller) grey or palette PNG, whose palette indices are the ids.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

MOST_PIXELS = 2**26  # 8192 x 8192: more is taken for a decompression bomb
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # no format that runs another program
ALPHA = frozenset({"LA", "RGBA", "PA", "La", "RGBa"})
PLAIN = frozenset({"RGB", "L", "P", "1"})
DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
ORIENTATION = 0x0112  # EXIF tag; 1 = as stored


class FaultError(Exception):
    """What is wrong with one file, in a few words."""


def decode_image(content: bytes, *, published: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of an image file; FaultError where it is damaged or could be meant in two ways.

    published: of a data set whose meaning is settled, rotation tags and all.
    """
    with named_faults():
        return _image(content, published)


def decode_label(content: bytes) -> UInt8[np.ndarray, "h w"]:
    """Ids of a label PNG as they stand in the file; FaultError where it is damaged or no map of 8-bit ids."""
    with named_faults():
        return _label(content)


@contextmanager
def named_faults() -> Iterator[None]:
    """Whatever a decoder raises inside becomes a FaultError."""
    try:
        yield
    except FaultError:
        raise
    except Exception as error:  # noqa: BLE001 -- decoders meet damage with any exception there is
        raise FaultError(f"is truncated or damaged: {_line(error)}") from None


def _image(content: bytes, published: bool) -> UInt8[np.ndarray, "h w 3"]:
    image = _open(content, IMAGE_FORMATS, "an image (PNG, JPEG, BMP, TIFF, WebP, PPM)", several=published)
    if image.mode in ALPHA or "transparency" in image.info:
        raise FaultError("has an alpha channel: save it without transparency")
    if image.mode in DEEP or _png_depth(content) == 16:
        raise FaultError("has 16 or more bits per channel: convert it to 8")
    if image.mode not in PLAIN and not (published and image.mode == "CMYK"):
        raise FaultError(f"has {image.mode} colours: convert it to RGB")
    if not published and (turned := image.getexif().get(ORIENTATION, 1)) not in (0, 1):
        raise FaultError(f"has an EXIF rotation tag ({turned}): save it turned, without the tag, as its label is meant")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _label(content: bytes) -> UInt8[np.ndarray, "h w"]:
    image = _open(content, ("PNG",), "a PNG (labels must be lossless)")
    if image.mode in {"RGB", "RGBA"}:
        raise FaultError(_colours(image))
    if image.mode in DEEP or _png_depth(content) == 16:
        ids = _few(np.unique(np.asarray(image)))
        raise FaultError(f"has 16 bits per pixel with ids {ids}: save ids 0 to 255 with 8 bits")
    if image.mode not in {"L", "P", "1"}:
        raise FaultError(f"has mode {image.mode}: save one 8-bit id per pixel")
    stretch = {2: 85, 4: 17}.get(_png_depth(content), 1) if image.mode == "L" else 1
    return np.asarray(image).astype(np.uint8) // np.uint8(stretch)  # PIL spreads 2- and 4-bit grey over 0 ... 255


def _open(content: bytes, formats: tuple[str, ...], expected: str, *, several: bool = False) -> Image.Image:
    if not content:
        raise FaultError("is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
        if image.format == "PNG":
            Image.open(io.BytesIO(content), formats=formats).verify()  # checksums, which loading leaves out
    except Image.DecompressionBombError as error:
        raise FaultError(f"is far too large: {error}") from None
    except UnidentifiedImageError:
        raise FaultError(f"is not {expected}, or its beginning is damaged") from None
    if image.width * image.height > MOST_PIXELS:
        raise FaultError(f"is far too large: {image.width} x {image.height}, the limit is {MOST_PIXELS} pixels")
    if getattr(image, "n_frames", 1) != 1 and not several:
        raise FaultError("is an animation or has several pages: save one picture")
    return image


def _png_depth(content: bytes) -> int:
    """Bits per channel in a PNG's header; 8 for anything else."""
    return content[24] if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 24 else 8


def _colours(image: Image.Image) -> str:
    pixels = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    if (pixels == pixels[:, :1]).all():
        return f"holds grey as RGB (ids {_few(pixels[:, 0])}): save it with one channel"
    examples = ", ".join(str(tuple(int(v) for v in one)) for one in pixels[:3])
    return f"is a colour mask ({len(pixels)} colours, as {examples}): save class numbers instead of colours"


def _few(values: np.ndarray) -> str:
    texts = [str(int(one)) for one in values[:12]]
    return ", ".join(texts) + (f", ... ({len(values)} in all)" if len(values) > 12 else "")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
