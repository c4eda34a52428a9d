"""Every fault of a data set is found, named, and reported with all the others; nothing is prepared then."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import DESCRIPTION, folder, ids, picture, png, prepared, put
from PIL import Image

from segkd.data import decode
from segkd.errors import DataError

IMAGE, LABEL = "images/train/train1.png", "labels/train/train1.png"  # 13 x 16


def coded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def deep_rgb() -> bytes:
    """A 16-bit RGB PNG, which PIL reads as 8-bit without a word."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + b"\x12\x34" * 3 * 16 for _ in range(13))
    header = struct.pack(">IIBBBBB", 16, 13, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def flipped(content: bytes) -> bytes:
    """One bit changed in the middle of the pixels."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return coded(Image.fromarray(picture(1, 13)), "JPEG", exif=exif)


PIXELS = Image.fromarray(picture(1, 13))
GREY = Image.fromarray(ids(1, 13))

IMAGES = {
    "empty": (b"", "is empty"),
    "no image": (b"<html>login</html>", "is not an image"),
    "truncated JPEG": (coded(PIXELS, "JPEG")[:-40], "truncated or damaged"),
    "truncated PNG": (png(picture(1, 13))[:-40], "damaged"),
    "flipped bit": (flipped(png(picture(1, 13))), "damaged"),
    "16-bit grey": (coded(Image.fromarray(np.full((13, 16), 999, np.uint16)), "PNG"), "16 or more bits"),
    "16-bit colour": (deep_rgb(), "16 or more bits"),
    "alpha": (coded(PIXELS.convert("RGBA"), "PNG"), "alpha channel"),
    "transparent colour": (coded(PIXELS, "PNG", transparency=(1, 2, 3)), "alpha channel"),
    "CMYK": (coded(PIXELS.convert("CMYK"), "JPEG"), "CMYK"),
    "rotation tag": (rotated(), r"EXIF rotation tag \(6\)"),
    "animation": (coded(PIXELS, "PNG", save_all=True, append_images=[PIXELS.rotate(180)]), "animation"),
    "vector": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 13\n", "is not an image"),
    "other size": (png(picture(1, 20)), "is 16 x 13 but its image .* is 16 x 20"),
}

LABELS = {
    "JPEG": (coded(GREY, "JPEG"), "is not a PNG"),
    "truncated": (png(ids(1, 13))[:-30], "damaged"),
    "colour mask": (png(picture(1, 13)), r"colour mask \(208 colours"),
    "grey as RGB": (coded(GREY.convert("RGB"), "PNG"), r"grey as RGB \(ids 0, 1, 2, 255\)"),
    "16-bit": (coded(Image.fromarray(np.full((13, 16), 65535, np.uint16)), "PNG"), "16 bits per pixel with ids 65535"),
    "alpha": (coded(GREY.convert("LA"), "PNG"), "mode LA"),
    "other size": (png(ids(1, 14)), "is 16 x 14 but its image .* is 16 x 13"),
}


@pytest.mark.fault("P3", "images: empty, truncated, 16-bit, alpha, CMYK, EXIF rotation, animation, vector, other size")
@pytest.mark.parametrize("case", IMAGES)
def test_an_unusable_image_is_named(tmp_path, case):
    content, message = IMAGES[case]
    config = folder(tmp_path / "files")
    put(tmp_path / "files" / IMAGE, content)
    with pytest.raises(DataError, match=rf"1 fault;[\s\S]*train1.*{message}"):
        prepared(config, tmp_path)


@pytest.mark.fault("P3", "labels: JPEG, truncated, colours, grey as RGB, 16-bit (-1 as 65535), alpha, other size")
@pytest.mark.parametrize("case", LABELS)
def test_an_unusable_label_is_named(tmp_path, case):
    content, message = LABELS[case]
    config = folder(tmp_path / "files")
    put(tmp_path / "files" / LABEL, content)
    with pytest.raises(DataError, match=rf"1 fault;[\s\S]*{LABEL}: .*{message}"):
        prepared(config, tmp_path)


@pytest.mark.fault("P3", "images and labels with any bytes changed (hypothesis)")
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=80)
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM"]), st.randoms(use_true_random=False))
def test_damage_anywhere_is_a_fault_or_pixels_never_a_crash(form, random):
    content = bytearray(coded(PIXELS, form))
    for _ in range(random.randint(1, 8)):
        content[random.randrange(len(content))] = random.randrange(256)
    damaged = bytes(content[: random.randint(1, len(content))] if random.random() < 0.3 else content)
    for decoder, axes in [(decode.decode_image, 3), (decode.decode_label, 2)]:
        try:
            pixels = decoder(damaged)
        except decode.FaultError as fault:
            assert str(fault)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == axes


@pytest.mark.fault("P4", "a picture of too many pixels")
def test_a_decompression_bomb_is_not_decoded(tmp_path, monkeypatch):
    config = folder(tmp_path / "files")
    monkeypatch.setattr(decode, "MOST_PIXELS", 13 * 16)  # train2 and train3 are larger
    with pytest.raises(DataError, match=r"train2.png: is far too large: 16 x 14"):
        prepared(config, tmp_path)


@pytest.mark.fault("P4", "a picture whose header promises gigabytes")
def test_a_header_that_promises_gigabytes_is_refused():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(decode.FaultError, match="far too large"):
        decode.decode_image(b"\x89PNG\r\n\x1a\n" + chunk + png(picture(0))[33:])


@pytest.mark.fault("P3", "grey, palette and black-and-white images")
@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_palette_and_black_and_white_images_become_rgb(mode):
    pixels = decode.decode_image(coded(PIXELS.convert(mode), "PNG"))
    assert np.array_equal(pixels, np.asarray(PIXELS.convert(mode).convert("RGB")))


@pytest.mark.fault("P3", "palette labels of 1, 2 and 4 bits whose colours mean nothing")
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_palette_labels_keep_their_indices(bits):
    label = np.random.default_rng(0).integers(0, 2**bits, (13, 16), dtype=np.uint8)
    image = Image.fromarray(label, "P")
    image.putpalette([7] * 3 * 2**bits)  # colours do not matter
    assert np.array_equal(decode.decode_label(coded(image, "PNG", bits=bits)), label)


@pytest.mark.fault("P3", "grey labels of 1, 2 and 4 bits")
@pytest.mark.parametrize(("bits", "kind"), [(2, 0), (4, 0), (1, 0)])
def test_small_grey_labels_keep_their_ids(bits, kind):
    label = np.random.default_rng(0).integers(0, 2**bits, (13, 16), dtype=np.uint8)
    per = 8 // bits
    packed = sum(label[:, k::per].astype(int) << (8 - bits * (k + 1)) for k in range(per)).astype(np.uint8)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 13, bits, kind, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(decode.decode_label(content), label)


@pytest.mark.fault("P3", "raw ids instead of classes")
def test_raw_cityscapes_ids_are_listed_with_the_map_that_fits(tmp_path):
    names = ", ".join(f"c{k}" for k in range(19))
    config = folder(tmp_path / "files", description=f"classes: [{names}]\nignore: 0\nfirst_id: 1\n")
    for k, content in enumerate([[7, 8, 33], [7, 24, 26]]):
        put(tmp_path / f"files/labels/train/train{k}.png", png(np.resize(np.array(content, np.uint8), (12 + k, 16))))
    with pytest.raises(DataError, match=r"label id 33: in 1 file, first labels/train/train0.png") as caught:
        prepared(config, tmp_path)
    assert "label ids seen in the whole data set: 0, 1, 2, 7, 8, 24, 26, 33, 255" in str(caught.value)


@pytest.mark.fault("P3", "a label id equal to the number of classes")
def test_void_as_the_last_id_is_explained(tmp_path):
    config = folder(tmp_path / "files")
    put(tmp_path / "files" / LABEL, png(np.full((13, 16), 3, np.uint8)))
    with pytest.raises(DataError, match=r"label id 3: in 1 file[\s\S]*`ignore: \[3, 255\]`[\s\S]*first_id: 1"):
        prepared(config, tmp_path)


@pytest.mark.fault("P3", "the same picture in two splits")
def test_a_picture_in_two_splits_is_found_even_in_another_format(tmp_path):
    config = folder(tmp_path / "files")
    (tmp_path / "files/images/test/test0.png").unlink()
    twin = Image.open(tmp_path / "files/images/train/train0.png")
    put(tmp_path / "files/images/test/test0.bmp", coded(twin, "BMP"))
    with pytest.raises(DataError, match=r"test0.bmp: is the same picture as images/train/train0.png in train"):
        prepared(config, tmp_path)


@pytest.mark.fault("P3", "other numbers of images than stated")
def test_wrong_counts_are_reported(tmp_path):
    config = folder(tmp_path / "files", description=DESCRIPTION + "counts: {train: 10, val: 2, test: 3}\n")
    with pytest.raises(DataError, match=r"split train: 10 images expected, 4 found") as caught:
        prepared(config, tmp_path)
    assert "split test: 3 images expected, 2 found" in str(caught.value) and "split val" not in str(caught.value)


@pytest.mark.fault("P3", "many faults in one data set")
def test_all_faults_come_at_once_and_nothing_is_written(tmp_path):
    config = folder(tmp_path / "files")
    files = tmp_path / "files"
    put(files / "images/train/train0.png", b"")
    put(files / "labels/train/train1.png", png(picture(1, 13)))
    put(files / "labels/train/train2.png", png(np.full((14, 16), 9, np.uint8)))
    (files / "labels/val/val0.png").unlink()
    (files / "images/val/val1.png").unlink()
    put(files / "images/test/test1.png", (files / "images/train/train3.png").read_bytes())
    put(files / "labels/test/test1.png", (files / "labels/train/train3.png").read_bytes())
    with pytest.raises(DataError) as caught:
        prepared(config, tmp_path)
    text = str(caught.value)
    for fault in (
        "images/train/train0.png: is empty",
        "labels/train/train1.png: is a colour mask",
        "label id 9: in 1 file, first labels/train/train2.png; known are 0, 1, 2, 255",
        "images/val/val0.png: has no label",
        "labels/val/val1.png: has no image",
        "images/test/test1.png: is the same picture as images/train/train3.png in train",
    ):
        assert fault in text
    assert list((tmp_path / "prepared").iterdir()) == []


@pytest.mark.fault("P3", "a file that changed after the download")
def test_a_file_changed_after_download_is_found(tmp_path):
    from segkd.data.download import download
    from segkd.data.prepare import prepare

    config = folder(tmp_path / "files")
    download("mine", config, tmp_path / "raw")
    put(tmp_path / "files" / IMAGE, png(picture(99, 13)))
    with pytest.raises(DataError, match=r"train1.png: has changed since `segkd download`"):
        prepare("mine", config, tmp_path / "raw", tmp_path / "prepared")


@pytest.mark.fault("P3", "a preparation that fails after one that did not")
def test_an_earlier_result_survives_a_failing_preparation(tmp_path):
    config = folder(tmp_path / "files")
    out = prepared(config, tmp_path)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    put(tmp_path / "files" / IMAGE, b"")
    with pytest.raises(DataError, match="is empty"):
        prepared(config, tmp_path)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
