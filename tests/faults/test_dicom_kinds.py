"""`skinlesion predict` on DICOM: compressions, bits, colour models, frames, and what is missing in them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.pixels import convert_color_space

from tests.support.command_line import probabilities, run
from tests.support.dicom_files import dicom, without_image
from tests.support.half_coded import cut_jpeg, encode, holed, jpeg, picture

jpeg_ls = pytest.importorskip("jpeg_ls")
openjpeg = pytest.importorskip("openjpeg.utils")
pytestmark = pytest.mark.command_line

PIXELS = np.asarray(picture())
GREY = np.asarray(picture().convert("L"))
DEEP = ((GREY.astype(int) * 4095 + 127) // 255).astype(np.uint16)
JPEG_LS = bytes(jpeg_ls.encode_array(PIXELS))
JPEG_2000 = openjpeg.encode_array(PIXELS, photometric_interpretation=1)
BASELINE = jpeg(subsampling=1)
SIZE = {"shape": PIXELS.shape[:2]}
YBR = convert_color_space(PIXELS, "RGB", "YBR_FULL")


def png(pixels: np.ndarray) -> bytes:
    return encode(Image.fromarray(pixels), "PNG")


def compressed(frames: list[bytes], syntax: str, photometric: str = "RGB", **more: object) -> bytes:
    return dicom(frames, photometric, syntax=syntax, **SIZE, **more)


FILES = {
    "colour.png": png(PIXELS),
    "grey.png": png(np.repeat(GREY[..., None], 3, axis=-1)),
    "baseline.jpg": BASELINE,
    "second.png": png(PIXELS[::-1]),
    "IM0001": dicom(PIXELS),
    "named.jpg": dicom(PIXELS),
    "no-preamble": dicom(PIXELS)[132:],
    "jpeg-ls.dcm": compressed([JPEG_LS], uid.JPEGLSLossless),
    "jpeg-2000.dcm": compressed([JPEG_2000], uid.JPEG2000Lossless, "YBR_RCT"),
    "baseline.dcm": compressed([BASELINE], uid.JPEGBaseline8Bit, "YBR_FULL_422"),
    "deflated.dcm": dicom(PIXELS, syntax=uid.DeflatedExplicitVRLittleEndian),
    "ybr.dcm": dicom(YBR, "YBR_FULL"),
    "12-bit.dcm": dicom(DEEP, "MONOCHROME2", stored=12),
    "12-bit-high.dcm": dicom(DEEP << 4, "MONOCHROME2", stored=12, high=15),
    "12-bit-dirty.dcm": dicom(DEEP | 0xA000, "MONOCHROME2", stored=12),
    "inverted.dcm": dicom(4095 - DEEP, "MONOCHROME1", stored=12),
    "frames.dcm": dicom(np.stack([PIXELS, PIXELS[::-1], PIXELS]), frames=3),
    "report.dcm": without_image(),
    "hsv.dcm": dicom(PIXELS, "HSV"),
    "argb.dcm": dicom(np.dstack([GREY, PIXELS]), "ARGB", samples=4),
    "cmyk.dcm": dicom(np.dstack([PIXELS, GREY]), "CMYK", samples=4),
    "ybr-partial.dcm": dicom(PIXELS, "YBR_PARTIAL_422"),
    "escapes.dcm": dicom(PIXELS, "\x1b[31mX\x9b"),
    "signed.dcm": dicom(DEEP, "MONOCHROME2", stored=12, PixelRepresentation=1),
    "mpeg.dcm": compressed([b"\0\0\1\xba" + bytes(200)], uid.MPEG4HP41, "YBR_FULL_422"),
    "half-baseline.dcm": compressed([cut_jpeg(BASELINE)], uid.JPEGBaseline8Bit, "YBR_FULL_422"),
    "holed-baseline.dcm": compressed([holed(BASELINE)], uid.JPEGBaseline8Bit, "YBR_FULL_422"),
    "padded-baseline.dcm": compressed(
        [BASELINE[: len(BASELINE) // 2] + bytes(len(BASELINE) // 2)], uid.JPEGBaseline8Bit, "YBR_FULL_422"
    ),
    "half-ls.dcm": compressed([cut_jpeg(JPEG_LS)], uid.JPEGLSLossless),
    "holed-ls.dcm": compressed([holed(JPEG_LS)], uid.JPEGLSLossless),
    "half-2000.dcm": compressed([cut_jpeg(JPEG_2000)], uid.JPEG2000Lossless, "YBR_RCT"),
    "holed-2000.dcm": compressed([holed(JPEG_2000, 0.5, 1.0)], uid.JPEG2000Lossless, "YBR_RCT"),
    "half-rle.dcm": compressed(
        [bytes([1, 0, 0, 0, 64]) + bytes(59) + b"\x7f" + bytes(5000)], uid.RLELossless
    ),
    "half-native.dcm": dicom(PIXELS, PixelData=PIXELS[:40].tobytes()),
    "two-billion-frames.dcm": dicom(PIXELS, NumberOfFrames=2_000_000_000),
}
UNREAD = {
    "unsupported_mode": ("hsv", "argb", "cmyk", "ybr-partial", "escapes", "signed"),
    "unsupported_codec": ("mpeg",),
}
HALF = [name for name in FILES if name.startswith(("half", "holed", "padded", "two-billion"))]


@pytest.fixture(scope="module")
def done(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("dicom")
    (folder / "in").mkdir()
    for name, content in FILES.items():
        (folder / "in" / name).write_bytes(content)
    result = run("predict", folder / "in", "-o", folder / "out.csv", "-w", tiny_workspace)
    assert result.exit_code == 3, result.output
    with (folder / "out.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}, result.output


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        *((name, "colour.png") for name in ("IM0001", "named.jpg", "no-preamble", "deflated.dcm")),
        *((name, "colour.png") for name in ("jpeg-ls.dcm", "jpeg-2000.dcm", "frames.dcm#1", "frames.dcm#3")),
        ("frames.dcm#2", "second.png"),
        *((f"{name}.dcm", "grey.png") for name in ("12-bit", "12-bit-high", "12-bit-dirty", "inverted")),
    ],
)
def test_dicom_of_any_name_compression_and_bits_has_the_prediction_of_its_pixels(done, name, same_as) -> None:
    rows, _ = done
    assert rows[name]["status"] == "ok", rows[name]["error"]
    assert probabilities(rows[name]) == probabilities(rows[same_as])


@pytest.mark.parametrize(("name", "same_as"), [("baseline.dcm", "baseline.jpg"), ("ybr.dcm", "colour.png")])
def test_dicom_of_other_colour_models_is_converted(done, name: str, same_as: str) -> None:
    rows, _ = done
    ours, theirs = (np.array(probabilities(rows[n]), dtype=float) for n in (name, same_as))
    np.testing.assert_allclose(ours, theirs, atol=0.001)


@pytest.mark.parametrize(("reason", "names"), UNREAD.items())
def test_dicom_that_is_not_read_says_why(done, reason: str, names: tuple[str, ...]) -> None:
    rows, _ = done
    assert {rows[f"{name}.dcm"]["error"].partition(":")[0] for name in names} == {reason}


def test_what_a_file_says_reaches_no_terminal_as_it_is(done) -> None:
    rows, output = done
    assert "\x1b" not in rows["escapes.dcm"]["error"] + output
    assert "\x9b" not in rows["escapes.dcm"]["error"] + output


@pytest.mark.parametrize("name", HALF)
def test_half_coded_dicom_costs_its_row(done, name: str) -> None:
    rows, _ = done
    assert rows[name]["status"] == "error"
    assert rows[name]["error"].partition(":")[0] in ("truncated", "damaged", "too_complex")


def test_dicom_without_an_image_is_counted_and_the_library_is_silent(done) -> None:
    rows, output = done
    assert "report.dcm" not in rows
    assert "1 DICOM without an image" in output
    assert "pydicom" not in output
    assert "Warning" not in output
