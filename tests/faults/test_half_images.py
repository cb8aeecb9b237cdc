"""`skinlesion predict` on images of which a part is not coded: an error row each,
whatever the decoder fills in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import half_coded
from tests.support.command_line import probabilities, rows_of, run

pytestmark = pytest.mark.command_line

WHOLE = {
    "baseline.jpg": half_coded.jpeg(),
    "progressive.jpg": half_coded.jpeg(progressive=True),
    "optimised.jpg": half_coded.jpeg(optimize=True),
    "restarts.jpg": half_coded.jpeg(restart_marker_blocks=2),
    "rows.png": half_coded.png_rows(half_coded.HEIGHT),
    "lossy.webp": half_coded.encode(half_coded.picture(), "WEBP", quality=90),
    "lossless.webp": half_coded.encode(half_coded.picture(), "WEBP", lossless=True),
    "runs.bmp": half_coded.whole_rle_bmp(),
    "lzw.tif": half_coded.encode(half_coded.picture(), "TIFF", compression="tiff_lzw"),
    "jpeg.tif": half_coded.encode(half_coded.picture(), "TIFF", compression="jpeg"),
}


@pytest.fixture(scope="module")
def rows(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("half")
    (folder / "in").mkdir()
    for name, content in (half_coded.HALF | WHOLE).items():
        (folder / "in" / name).write_bytes(content)
    done = run("predict", folder / "in", "-o", folder / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    return rows_of(folder / "out.csv")


@pytest.mark.parametrize("name", half_coded.HALF)
def test_half_coded_images_cost_their_row(rows, name: str) -> None:
    row = rows[name]
    assert row["status"] == "error"
    assert row["error"].partition(":")[0] in ("truncated", "damaged")
    assert probabilities(row) == ("",) * 7


@pytest.mark.parametrize("name", WHOLE)
def test_whole_images_of_the_same_kinds_are_read(rows, name: str) -> None:
    assert (rows[name]["status"], rows[name]["error"]) == ("ok", "")
