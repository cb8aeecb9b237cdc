"""`skinlesion predict` on pictures whose file says what their values mean: profiles, bits, polarity,
colour models.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import probabilities, rows_of, run
from tests.support.half_coded import HEIGHT, WIDTH, encode, picture, png_header, png_of

pytestmark = pytest.mark.command_line

SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
DISPLAY_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE_RGB = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
# Chromatic adaptation from D65 to D50 (Bradford), as the ICC specification prints it.
TO_D50 = np.array(
    [
        [1.0478112, 0.0228866, -0.0501270],
        [0.0295424, 0.9904844, -0.0170491],
        [-0.0092345, 0.0150436, 0.7521316],
    ]
)
PIXELS = np.asarray(picture())
GREY = np.asarray(picture().convert("L"))


def to_xyz(chromaticities: tuple[float, ...]) -> np.ndarray:
    """Linear RGB to XYZ (Lindbloom), columns are the primaries."""
    xy = np.array(chromaticities).reshape(4, 2)
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]], axis=1)
    return xyz[1:].T * np.linalg.solve(xyz[1:].T, xyz[0])


def linear(values: np.ndarray) -> np.ndarray:
    values = values / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def stored_in(chromaticities: tuple[float, ...], gamma: float) -> np.ndarray:
    """The picture's colours as values of another space; none of them leaves it."""
    light = linear(PIXELS) @ (np.linalg.inv(to_xyz(chromaticities)) @ to_xyz(SRGB)).T
    return (np.clip(light, 0, 1) ** (1 / gamma) * 255).round().astype(np.uint8)


def profile(chromaticities: tuple[float, ...], gamma: float) -> bytes:
    """A matrix and gamma profile, version 2 (ICC.1:2001-04)."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    columns = (TO_D50 @ to_xyz(chromaticities)).T
    description = b"test space\0"
    tags = [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(description)) + description + bytes(78)),
        (b"wtpt", b"XYZ \0\0\0\0" + s15(0.9642) + s15(1.0) + s15(0.8249)),
        *(
            (name, b"XYZ \0\0\0\0" + b"".join(s15(v) for v in column))
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
        ),
        *(
            (name, b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)))
            for name in (b"rTRC", b"gTRC", b"bTRC")
        ),
    ]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    header = bytearray(128)
    header[0:4] = struct.pack(">I", start + len(body))
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    header[68:80] = s15(0.9642) + s15(1.0) + s15(0.8249)
    return bytes(header) + table + body


P3, ADOBE = profile(DISPLAY_P3, 2.2), profile(ADOBE_RGB, 2.2)


def save(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    return encode(Image.fromarray(pixels), kind, **options)


def with_chunks(pixels: np.ndarray, gamma: float, chromaticities: tuple[float, ...]) -> bytes:
    rows = b"".join(b"\0" + line.tobytes() for line in pixels)
    return png_of(
        png_header(),
        (b"gAMA", struct.pack(">I", round(100000 * gamma))),
        (b"cHRM", struct.pack(">8I", *(round(100000 * value) for value in chromaticities))),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )


def tiff(values: np.ndarray, bits: int, *, photometric: int = 1, sample_format: int = 1) -> bytes:
    """A grey TIFF with one strip, by hand: Pillow writes none of these."""
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        strip = (
            np.stack(
                [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
            )
            .astype(np.uint8)
            .tobytes()
        )
    else:
        strip = values.astype("<u2" if bits == 16 else "u1").tobytes()
    entries = [
        *(
            (256, WIDTH),
            (257, HEIGHT),
            (258, bits),
            (259, 1),
            (262, photometric),
            (273, 8),
            (277, 1),
            (278, HEIGHT),
        ),
        *((279, len(strip)), (339, sample_format)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, v) for tag, v in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


def bmp_without_alpha() -> bytes:
    """32 bits a pixel with an alpha mask, and 0 in every fourth byte."""
    layered = np.dstack([PIXELS[::-1, :, ::-1], np.zeros((HEIGHT, WIDTH), np.uint8)])
    info = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, layered.size, 2835, 2835, 0, 0)
    info += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 122 + layered.size, 0, 0, 122) + info + layered.tobytes()


def cmyk_without_adobe() -> bytes:
    data = encode(picture().convert("CMYK"), "JPEG", quality=95)
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 16 :]


FILES = {
    "plain.png": save(PIXELS),
    "grey.png": save(np.repeat(GREY[..., None], 3, axis=-1)),
    "p3.png": save(stored_in(DISPLAY_P3, 2.2), icc_profile=P3),
    "adobe.png": save(stored_in(ADOBE_RGB, 2.2), icc_profile=ADOBE),
    "p3.tif": save(stored_in(DISPLAY_P3, 2.2), "TIFF", icc_profile=P3),
    "p3.webp": save(stored_in(DISPLAY_P3, 2.2), "WEBP", lossless=True, icc_profile=P3),
    "p3.jpg": save(stored_in(DISPLAY_P3, 2.2), "JPEG", quality=100, subsampling=0, icc_profile=P3),
    "p3-ignored.png": save(stored_in(DISPLAY_P3, 2.2)),
    "chunks.png": with_chunks(stored_in(ADOBE_RGB, 2.2), 1 / 2.2, ADOBE_RGB),
    "srgb-chunks.png": with_chunks(PIXELS, 0.45455, SRGB),
    "broken-profile.png": save(PIXELS, icc_profile=P3[:200]),
    "no-profile.jpg": save(PIXELS, "JPEG", quality=100, subsampling=0),
    "nonsense-profile.jpg": save(PIXELS, "JPEG", quality=100, subsampling=0, icc_profile=b"\0" * 300),
    "12-bit.tif": tiff(GREY.astype(int) * 4095 // 255, 12),
    "white-is-zero.tif": tiff(65535 - GREY.astype(int) * 257, 16, photometric=0),
    "white-is-zero-8.tif": tiff(255 - GREY.astype(int), 8, photometric=0),
    "signed.tif": tiff(GREY.astype(int) * 257 - 32768, 16, sample_format=2),
    "signed-8.tif": tiff(GREY.astype(int) - 128, 8, sample_format=2),
    "mosaic.tif": tiff(GREY, 8, photometric=32803),
    "alpha-of-zero.bmp": bmp_without_alpha(),
    "cmyk-unmarked.jpg": cmyk_without_adobe(),
    "black.png": save(np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
    "nearly-black.png": encode(Image.fromarray(GREY.astype(np.uint16) * 16), "PNG"),
    "transparent.png": save(np.dstack([PIXELS, np.zeros((HEIGHT, WIDTH), np.uint8)])),
}


@pytest.fixture(scope="module")
def rows(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("colours")
    (folder / "in").mkdir()
    for name, content in FILES.items():
        (folder / "in" / name).write_bytes(content)
    done = run("predict", folder / "in", "-o", folder / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    return rows_of(folder / "out.csv")


def difference(rows, one: str, other: str) -> float:
    """The largest difference of a probability."""
    for name in (one, other):
        assert rows[name]["status"] == "ok", rows[name]["error"]
    ours, theirs = (np.array(probabilities(rows[name]), dtype=float) for name in (one, other))
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("name", ["p3.png", "adobe.png", "p3.tif", "p3.webp", "p3.jpg", "chunks.png"])
def test_colours_of_a_profile_become_srgb(rows, name: str) -> None:
    # The values as they are stored, without their profile, are predicted differently.
    ignored = difference(rows, "p3-ignored.png", "plain.png")
    assert ignored > 1e-5
    assert difference(rows, name, "plain.png") < ignored / 5


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("broken-profile.png", "plain.png"),
        ("srgb-chunks.png", "plain.png"),
        ("nonsense-profile.jpg", "no-profile.jpg"),
    ],
)
def test_a_broken_profile_and_that_of_srgb_change_nothing(rows, name: str, same_as: str) -> None:
    assert difference(rows, name, same_as) == 0.0


@pytest.mark.parametrize("name", ["12-bit.tif", "white-is-zero.tif", "white-is-zero-8.tif"])
def test_grey_is_read_by_its_bits_and_its_polarity(rows, name: str) -> None:
    assert difference(rows, name, "grey.png") == 0.0


def test_a_bmp_whose_alpha_is_zero_all_over_is_opaque(rows) -> None:
    assert difference(rows, "alpha-of-zero.bmp", "plain.png") == 0.0


@pytest.mark.parametrize("name", ["signed.tif", "signed-8.tif", "mosaic.tif", "cmyk-unmarked.jpg"])
def test_values_of_unknown_meaning_cost_their_row(rows, name: str) -> None:
    assert rows[name]["status"] == "error"
    assert rows[name]["error"].partition(":")[0] in ("unsupported_mode", "damaged")


@pytest.mark.parametrize("name", ["black.png", "nearly-black.png", "transparent.png"])
def test_a_picture_of_nothing_costs_its_row(rows, name: str) -> None:
    assert (rows[name]["status"], rows[name]["error"].partition(":")[0]) == ("error", "blank")
