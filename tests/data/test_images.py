"""Reading image files: every kind that comes in, and every fault."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.data.reading.images import load_image, read_image
from skinlesion_cli.errors import ImageError
from tests.support import tiny_datasets


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Red grows to the right, green downwards, blue is 128: every orientation looks different."""
    right = np.linspace(0, 255, width).round()[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height).round()[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([right, down, np.full_like(right, 128)], axis=2).astype(np.uint8))


def reason(data: bytes | Path, **limits) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data, **limits)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_formats_without_loss(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (read_image(encode(picture(), kind, **options)) == np.asarray(picture())).all()


def test_the_result_is_rgb_bytes_of_the_files_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(picture(), "JPEG", quality=95))
    image = read_image(tmp_path / "a.jpg")
    assert (image.dtype, image.shape) == (np.uint8, (24, 40, 3))
    assert np.abs(image.astype(int) - np.asarray(picture())).max() <= 12


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientations_give_the_upright_image(orientation, undo, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    turned = encode(picture().transpose(undo), kind, exif=exif, **options)
    assert np.abs(read_image(turned).astype(int) - np.asarray(picture())).max() <= (
        4 if kind == "JPEG" else 0
    )


def test_an_unreadable_exif_block_costs_nothing():
    data = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_image(data).shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ],
)
def test_modes_of_png(mode, colour, expected):
    image = read_image(encode(Image.new(mode, (20, 20), colour), "PNG"))
    assert image.reshape(-1, 3).tolist() == [list(expected)] * 400


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.paste(0, (0, 0, 10, 20))
    read = read_image(encode(image, "PNG", transparency=0))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 19].tolist() == [200, 100, 50]


def test_cmyk():
    read = read_image(encode(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(read[16, 16].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_the_first_frame_of_several(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(read_image(data)[10, 10].astype(int) - [200, 0, 0]).max() <= 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.zeros((20, 20), dtype=np.uint16)
    values[0, :4] = [65535, 32896, 257, 128]
    image = read_image(encode(Image.fromarray(values), kind))
    # 65535 / 257 = 255; 32896 / 257 = 128; 257 / 257 = 1; 128 / 257 is below a half.
    assert image[0, :4, 0].tolist() == [255, 128, 1, 0]


def test_16_bit_colour_is_scaled_not_clipped():
    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 32896, 0) * 20 for _ in range(20))
    header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    image = read_image(png_of([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]))
    assert image[3, 3].tolist() == [255, 128, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_of_unknown_range_are_refused(dtype):
    data = encode(Image.fromarray(np.full((20, 20), 3, dtype=dtype)), "TIFF")
    assert reason(data) == "unsupported_mode"


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"hello, this is no image", "not_an_image"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
        (b"\0" * 5000, "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n", "unsupported_kind"),
    ],
)
def test_what_is_no_image(data, expected):
    assert reason(data) == expected


def test_text_and_pages_are_told_apart():
    for data, words in (
        (b"plain words", "text"),
        (b"<html>", "web page"),
        (b"\x01\x02\x03\x04", "01 02 03 04"),
    ):
        with pytest.raises(ImageError, match=words):
            read_image(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_never_gives_half_an_image(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    data = encode(noise, kind)
    assert reason(data[: int(len(data) * share)]) in ("truncated", "damaged", "not_an_image")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_padded_with_zeros_to_its_length_is_truncated(progressive):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "a comment"
    data = encode(noise, "JPEG", exif=exif, progressive=progressive)
    half = len(data) // 2
    assert read_image(data).shape == (60, 80, 3)
    assert reason(data[:half] + b"\0" * (len(data) - half)) == "truncated"


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    assert read_image(encode(picture(), "JPEG") + b"trailer of a camera").shape == (24, 40, 3)


def test_a_wrong_checksum_in_a_png_is_damage():
    data = encode(picture(), "PNG")
    position = data.index(b"IDAT") + 4 + struct.unpack(">I", data[data.index(b"IDAT") - 4 :][:4])[0]
    broken = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
    assert reason(broken) == "damaged"


def test_too_many_pixels_are_refused_before_they_are_decoded():
    header = struct.pack(">IIBBBBB", 11_000, 11_000, 8, 2, 0, 0, 0)
    bomb = png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")])
    assert reason(bomb) == "too_large"
    header = struct.pack(">IIBBBBB", 2_000_000, 2_000_000, 8, 2, 0, 0, 0)
    assert reason(png_of([(b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")])) == "too_large"
    with pytest.raises(ImageError, match="40 x 24 pixels; the limit is 900"):
        read_image(encode(picture(), "PNG"), max_pixels=900)
    assert read_image(encode(picture(), "PNG"), max_pixels=960).shape == (24, 40, 3)


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (4000, 3)])
def test_too_small_or_too_narrow(size):
    assert reason(encode(Image.new("RGB", size), "PNG")) == "too_small"


def test_what_is_no_readable_file(tmp_path):
    assert reason(tmp_path / "none.jpg") == "missing"
    assert reason(tmp_path) == "not_a_file"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not_a_file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert reason(tmp_path / "loop.jpg") == "unreadable"


def test_large_jpegs_are_decoded_at_reduced_scale_with_twice_the_target_left():
    data = tiny_datasets.jpeg(1, (1600, 1200))
    for target_px, expected in (
        (None, (1200, 1600)),
        (601, (1200, 1600)),
        (300, (600, 800)),
        (150, (300, 400)),
    ):
        image = load_image(data, target_px=target_px)
        assert (image.pixels.shape[:2], image.reduced) == (expected, expected != (1200, 1600))
    assert read_image(data, target_px=16).shape[:2] == (150, 200)  # 1/8 is the least


def test_reduced_scale_keeps_orientation_and_looks_the_same():
    from skinlesion_cli.data.preprocess import resize_square

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(picture(1600, 1200).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    whole = resize_square(read_image(turned), 100)
    reduced = read_image(turned, target_px=100)
    assert reduced.shape[:2] == (300, 400)
    assert np.abs(resize_square(reduced, 100).astype(int) - whole).max() <= 3
