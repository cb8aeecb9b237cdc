"""`skinlesion` on small inputs that would take endless memory or time: each costs its row, or is refused."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import assert_refused, rows_of, run
from tests.support.half_coded import encode, jpeg, picture, png_header, png_of

pytestmark = pytest.mark.command_line

ZEROS = bytes(1 << 20)


def lying_zip(method: int) -> bytes:
    """A member of 200 MB that says that it has 1000 bytes; the stream is made piece by piece."""
    packer = bz2.BZ2Compressor() if method == zipfile.ZIP_BZIP2 else zlib.compressobj(9, zlib.DEFLATED, -15)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 3, "lp": 0, "pb": 2}]
    if method == zipfile.ZIP_LZMA:
        packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    packed = b"".join(packer.compress(ZEROS) for _ in range(200)) + packer.flush()
    if method == zipfile.ZIP_LZMA:
        packed = b"\x09\x04\x05\x00" + bytes([93]) + struct.pack("<I", 1 << 20) + packed
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.jpg", packed)
    data = bytearray(file.getvalue())
    table = data.index(b"PK\1\2")
    for method_at, size_at in ((8, 22), (table + 10, table + 24)):
        data[method_at : method_at + 2] = struct.pack("<H", method)
        data[size_at : size_at + 4] = struct.pack("<I", 1000)
    return bytes(data)


def empty_scans(count: int) -> bytes:
    data = jpeg(progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + count * last + b"\xff\xd9"


def giant_tile() -> bytes:
    tile = zlib.compress(ZEROS)
    entries = ((256, 100), (257, 100), (258, 8), (259, 8), (262, 1), (277, 1), (322, 60000), (323, 60000))
    entries += ((324, 8), (325, len(tile)))
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", t, 4, 1, v) for t, v in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(tile)) + tile + directory + bytes(4)


def many_pages() -> bytes:
    """A TIFF of 1001 pages that share one strip."""
    pixels = np.asarray(picture().convert("L").resize((32, 24))).tobytes()
    data = bytearray(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels)
    entries = (
        (256, 32),
        (257, 24),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 24),
        (279, len(pixels)),
    )
    for page in range(1001):
        data += struct.pack("<H", len(entries)) + b"".join(
            struct.pack("<HHII", t, 4, 1, v) for t, v in entries
        )
        data += struct.pack("<I", len(data) + 4 if page < 1000 else 0)
    return bytes(data)


def deflated_dicom() -> bytes:
    """A kilobyte of data set, and then 300 MB of zeros in 0.3 MB."""
    pytest.importorskip("pydicom")
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    from tests.support.dicom_files import dicom

    data = dicom(np.asarray(picture()), syntax=DeflatedExplicitVRLittleEndian)
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    while True:
        # The elements of group 2 that follow the transfer syntax.
        if data[start : start + 2] != b"\x02\0":
            break
        start += 8 + int.from_bytes(data[start + 6 : start + 8], "little")
    whole = zlib.decompress(data[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(whole + b"\x89\x00\x10\x00OB\0\0" + struct.pack("<I", 300 << 20))
    packed += b"".join(packer.compress(ZEROS) for _ in range(300)) + packer.flush()
    return data[:start] + packed


ROWS = bytes((1 + 128 * 3) * 96)
BOMBS = {
    "bz2.zip": (lambda: lying_zip(zipfile.ZIP_BZIP2), "archive_refused"),
    "lzma.zip": (lambda: lying_zip(zipfile.ZIP_LZMA), "archive_refused"),
    "deflate.zip": (lambda: lying_zip(zipfile.ZIP_DEFLATED), "archive_refused"),
    "scans.jpg": (lambda: empty_scans(400), "too_complex"),
    "fill.jpg": (lambda: jpeg()[:2] + b"\xff" * 4_000_000 + jpeg()[2:], "damaged"),
    "comments.jpg": (lambda: jpeg()[:2] + b"\xff\xfe\0\2" * 1_000_000 + jpeg()[2:], "damaged"),
    "tile.tif": (giant_tile, "too_large"),
    "pages.tif": (many_pages, "too_complex"),
    "deflated.dcm": (deflated_dicom, "too_large"),
    "chunks.png": (
        lambda: png_of(png_header(), *[(b"IDAT", b"")] * 150_000, (b"IEND", b"")),
        "too_complex",
    ),
    "text.png": (
        lambda: png_of(
            png_header(),
            *[(b"zTXt", b"a\0\0" + zlib.compress(ZEROS[:900_000], 9))] * 100,
            (b"IDAT", zlib.compress(ROWS)),
            (b"IEND", b""),
        ),
        "damaged",
    ),
}
# Beyond what the command takes for the good image beside them.
_MOST_BYTES = 1 << 30
_MOST_SECONDS = 20


def test_small_inputs_stay_within_memory_and_time(tiny_workspace: Path, tmp_path: Path) -> None:
    """In a process of its own, whose peak is that of the worst of them; the clock is that of its work."""
    (tmp_path / "in").mkdir()
    for name, (make, _) in BOMBS.items():
        content = make()
        assert len(content) <= 5_000_000, name
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "good.png").write_bytes(encode(picture(), "PNG"))
    names = sorted(str(path) for path in (tmp_path / "in").iterdir())
    (tmp_path / "list").write_text("\n".join(names))
    script = (
        "import json, resource, sys, time\n"
        "from skinlesion_cli.data.reading.inputs import expand, load\n"
        "from skinlesion_cli.errors import ImageError\n"
        "import pydicom.pixels\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, begun, found = peak(), time.process_time(), {}\n"
        "for source in expand(['@' + sys.argv[1]]):\n"
        "    try:\n"
        "        load(source); found[source.id] = ''\n"
        "    except ImageError as error:\n"
        "        found[source.id] = error.reason\n"
        "print(json.dumps([found, 1024 * (peak() - before), time.process_time() - begun]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "list"],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    reasons, grown_bytes, seconds = json.loads(done.stdout)
    expected = {name: reason for name, (_, reason) in BOMBS.items()} | {"good.png": ""}
    assert {Path(name).name: reason for name, reason in reasons.items()} == expected
    assert grown_bytes < _MOST_BYTES
    assert seconds < _MOST_SECONDS
    # The command says the same of each.
    result = run("predict", f"@{tmp_path / 'list'}", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    assert result.exit_code == 3, result.output
    rows = {
        Path(name).name: row["error"].partition(":")[0] for name, row in rows_of(tmp_path / "o.csv").items()
    }
    assert rows == expected


def test_a_list_without_an_end_of_line_is_one_row(tiny_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture(), "PNG"))
    (tmp_path / "list").write_bytes(b"x" * 4_000_000 + b"\n" + bytes(tmp_path / "a.png"))
    done = run("predict", f"@{tmp_path / 'list'}", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    rows = rows_of(tmp_path / "o.csv")
    assert [row["status"] for row in rows.values()] == ["error", "ok"]
    assert max(map(len, rows)) == 1 << 16


def test_an_image_of_every_size_that_is_allowed_stays_within_memory(tmp_path: Path) -> None:
    """64 megapixels in 60 kB: 192 MB of pixels, and no more than as much again."""
    Image.linear_gradient("L").resize((8000, 8000)).save(tmp_path / "large.png", compress_level=9)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from skinlesion_cli.data.reading.images import read_image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "print(read_image(Path(sys.argv[1])).shape, 1024 * (peak() - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "large.png"],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    shape, _, grown = done.stdout.strip().rpartition(" ")
    assert shape == "(8000, 8000, 3)"
    assert int(grown) < 700 << 20


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        "".join(f"k{n}: 1\n" for n in range(100_000)),
        "".join(f"k{n}: 1\n" for n in range(5000)),
        "[" * 50_000,
    ],
    ids=["aliases", "a hundred thousand keys", "five thousand keys", "nesting"],
)
def test_recipes_that_would_grow_without_end_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    done = run("train", "--arch", "densenet121", "--recipe", tmp_path / "recipe.yaml", "-w", tmp_path / "w")
    assert_refused(done, 2, "recipe.yaml")
    assert len(done.output) < 10_000
