"""`skinlesion predict` on every kind of image file that comes in, good and bad, all in one folder."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import probabilities, rows_of, run

pytestmark = pytest.mark.command_line

# How to turn the upright picture so that a viewer that heeds the EXIF orientation shows it upright.
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(seed: int, channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data


def png_header(width: int, height: int, bits: int = 8) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)


COLOUR = Image.fromarray(smooth(1))
GREY_VALUES = smooth(2)[..., 0]
GREY = Image.fromarray(GREY_VALUES)
JPEG = encode(COLOUR, "JPEG", quality=95)
PNG = encode(COLOUR)
ALPHA = np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)[None].repeat(48, 0)


def oriented(number: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    options = {"lossless": True} if kind == "WEBP" else {}
    return encode(COLOUR.transpose(UNDO[number]), kind, exif=exif, **options)


def wrong_checksum() -> bytes:
    start = PNG.index(b"IDAT")
    end = start + 4 + struct.unpack(">I", PNG[start - 4 : start])[0]
    return PNG[:end] + bytes([PNG[end] ^ 1]) + PNG[end + 1 :]


def colour_16_bit() -> bytes:
    # 257 * 255 = 65535: full scale stays full scale.
    lines = (np.asarray(COLOUR).astype(">u2") * 257).astype(">u2")
    data = b"".join(b"\0" + line.tobytes() for line in lines)
    return png_of(png_header(64, 48, 16), (b"IDAT", zlib.compress(data)), (b"IEND", b""))


def on_white() -> Image.Image:
    flat = np.asarray(COLOUR).copy()
    flat[:, 32:] = 255
    return Image.fromarray(flat)


def with_palette() -> Image.Image:
    image = Image.fromarray(GREY_VALUES, "L").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert image.mode == "P"
    return image


OTHER = Image.fromarray(smooth(3))
FILES = {
    "upright.png": PNG,
    **{f"png-{number}.png": oriented(number, "PNG") for number in UNDO},
    **{f"webp-{number}.webp": oriented(number, "WEBP") for number in UNDO},
    "same.bmp": encode(COLOUR, "BMP"),
    "same.tif": encode(COLOUR, "TIFF"),
    "same.webp": encode(COLOUR, "WEBP", lossless=True),
    "two-frames.tiff": encode(COLOUR, "TIFF", save_all=True, append_images=[OTHER]),
    "16-bit-colour.png": colour_16_bit(),
    "same.jpg": JPEG,
    "cmyk.jpg": encode(COLOUR.convert("CMYK"), "JPEG", quality=95),
    "grey-as-colour.png": encode(GREY.convert("RGB")),
    "l.png": encode(GREY),
    "la.png": encode(GREY.convert("LA")),
    "palette.png": encode(with_palette()),
    "two-frames.gif": encode(GREY, "GIF", save_all=True, append_images=[OTHER.convert("L")]),
    "16-bit-grey.png": encode(Image.fromarray(GREY_VALUES.astype(np.uint16) * 257)),
    "16-bit-grey.tif": encode(Image.fromarray(GREY_VALUES.astype(np.uint16) * 257), "TIFF"),
    "1-bit.png": encode(Image.fromarray(GREY_VALUES > 127)),
    "1-bit-as-colour.png": encode(Image.fromarray(np.where(GREY_VALUES > 127, 255, 0).astype(np.uint8))),
    "alpha.png": encode(Image.merge("RGBA", (*COLOUR.split(), Image.fromarray(ALPHA)))),
    "on-white.png": encode(on_white()),
    "float.tif": encode(Image.fromarray(GREY_VALUES.astype(np.float32)), "TIFF"),
    "32-bit.tif": encode(Image.fromarray(GREY_VALUES.astype(np.int32)), "TIFF"),
    "half.jpg": JPEG[: len(JPEG) // 2],
    "padded.jpg": JPEG[: len(JPEG) // 2].ljust(len(JPEG), b"\0"),
    "half.png": PNG[: len(PNG) // 2],
    "checksum.png": wrong_checksum(),
    "bomb.png": png_of(png_header(11_000, 11_000), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")),
    "absurd.png": png_of(png_header(2_000_000, 2_000_000), (b"IDAT", b""), (b"IEND", b"")),
    "dot.png": encode(Image.new("RGB", (1, 1))),
    "wire.png": encode(Image.new("RGB", (4000, 3))),
}


@pytest.fixture(scope="module")
def rows(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The table of a folder with all of these files."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "in").mkdir()
    for name, content in FILES.items():
        (folder / "in" / name).write_bytes(content)
    done = run("predict", folder / "in", "-o", folder / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    assert "10 images could not be read" in done.output
    found = rows_of(folder / "out.csv")
    # Each page of a TIFF is an image of its own.
    pages = {"two-frames.tiff#1", "two-frames.tiff#2"}
    assert set(found) == set(FILES) - {"two-frames.tiff"} | pages
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == ["in", "out.csv"]
    return found


def assert_error(row: dict[str, str], reason: str, *words: str) -> None:
    """The row says why, and holds nothing that could be taken for a prediction."""
    assert (row["status"], row["error"].partition(":")[0]) == ("error", reason)
    for word in words:
        assert word in row["error"]
    assert (row["decision"], row["triage"], *probabilities(row)) == ("",) * 9


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("half.jpg", {"truncated"}),
        ("padded.jpg", {"truncated"}),
        ("half.png", {"truncated", "damaged"}),
        ("checksum.png", {"damaged"}),
    ],
)
def test_damaged_files_cost_their_row(rows, name: str, reasons: set[str]) -> None:
    reason = rows[name]["error"].partition(":")[0]
    assert reason in reasons
    assert_error(rows[name], reason)


def test_too_many_pixels_cost_their_row(rows) -> None:
    assert_error(rows["bomb.png"], "too_large", "11000 x 11000", "64,000,000", "--max-pixels")
    assert_error(rows["absurd.png"], "too_large", "--max-pixels")


def test_the_limit_of_pixels_is_the_users(tiny_workspace: Path, images: Path, tmp_path: Path) -> None:
    # The images have 64 x 48 = 3072 pixels.
    for limit, code in ((3071, 3), (3072, 0)):
        output = tmp_path / f"{limit}.csv"
        done = run("predict", images, "-o", output, "--max-pixels", limit, "-w", tiny_workspace)
        assert done.exit_code == code, done.output
        expected = "too_large" if code else ""
        assert {row["error"].partition(":")[0] for row in rows_of(output).values()} == {expected}


def test_16_bit_images_are_scaled(rows) -> None:
    assert probabilities(rows["16-bit-colour.png"]) == probabilities(rows["upright.png"])
    assert probabilities(rows["16-bit-grey.png"]) == probabilities(rows["grey-as-colour.png"])
    assert probabilities(rows["16-bit-grey.tif"]) == probabilities(rows["grey-as-colour.png"])


@pytest.mark.parametrize("name", ["float.tif", "32-bit.tif"])
def test_values_without_a_known_range_cost_their_row(rows, name: str) -> None:
    assert_error(rows[name], "unsupported_mode", "range")


@pytest.mark.parametrize("number", UNDO)
def test_turned_images_have_the_prediction_of_the_upright_one(rows, number: int) -> None:
    assert probabilities(rows[f"png-{number}.png"]) == probabilities(rows["upright.png"])
    assert probabilities(rows[f"webp-{number}.webp"]) == probabilities(rows["upright.png"])


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        *((name, "upright.png") for name in ("same.bmp", "same.tif", "same.webp", "two-frames.tiff#1")),
        *((name, "grey-as-colour.png") for name in ("l.png", "la.png", "palette.png", "two-frames.gif")),
        ("1-bit.png", "1-bit-as-colour.png"),
        ("alpha.png", "on-white.png"),
    ],
)
def test_every_mode_and_format_is_converted(rows, name: str, same_as: str) -> None:
    assert rows[name]["status"] == "ok"
    assert probabilities(rows[name]) == probabilities(rows[same_as])


def test_cmyk_is_converted(rows) -> None:
    cmyk, colour = (np.array(probabilities(rows[name]), dtype=float) for name in ("cmyk.jpg", "same.jpg"))
    np.testing.assert_allclose(cmyk, colour, atol=0.02)


def test_these_pictures_are_told_apart(rows) -> None:
    """Otherwise equal predictions would say nothing."""
    names = ("upright.png", "grey-as-colour.png", "1-bit-as-colour.png", "on-white.png")
    assert len({probabilities(rows[name]) for name in names}) == 4


def test_images_without_enough_pixels_cost_their_row(rows) -> None:
    assert_error(rows["dot.png"], "too_small", "1 x 1")
    assert_error(rows["wire.png"], "too_small", "4000 x 3")
