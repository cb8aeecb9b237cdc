"""The page to review a batch: its content, and its behaviour in a browser."""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skinlesion_cli.report.batch import BatchPage, page, severity
from skinlesion_cli.report.page import script_json
from skinlesion_cli.taxonomy import DISCLAIMER
from tests.report.conftest import failed, opened, predicted

HOSTILE = "</script><img src=x onerror=\"document.title='run'\">&amp;.jpg"


def rows() -> list[dict]:
    return [
        predicted("calm.jpg", "routine", 0.1),
        predicted("sub/odd name #1%20.jpg", "review", 0.3, "BKL", quality=("dark", "hair"), flagged=True),
        predicted("worst.jpg", "refer", 0.9, "MEL", threshold_fired="MEL", argmax="NV"),
        failed("broken.jpg", "truncated: the image is truncated"),
        predicted("bad.jpg", "refer", 0.6, "BCC", overlay_magnitude=0.0),
        predicted(HOSTILE, "routine", 0.2),
    ]


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    return json.loads(found.group(1))


def test_sorted_worst_first(about: BatchPage) -> None:
    shown = [row["id"] for row in data_of(page(rows(), about))["rows"]]
    assert shown == ["worst.jpg", "bad.jpg", "sub/odd name #1%20.jpg", "broken.jpg", HOSTILE, "calm.jpg"]


def test_severity_of_equal_levels_is_by_malignant_probability() -> None:
    assert severity(predicted("a", "refer", 0.7)) < severity(predicted("b", "refer", 0.6))
    assert severity(predicted("a", "refer", 0.1)) < severity(predicted("b", "review", 0.9))


def test_counts_are_of_all_rows_and_the_worst_are_kept(about: BatchPage) -> None:
    html = page(rows(), replace(about, max_rows=2))
    assert [row["id"] for row in data_of(html)["rows"]] == ["worst.jpg", "bad.jpg"]
    assert re.search(r'data-level="routine".*?<b>2</b>', html)
    assert "The 2 worst of 6 images are shown" in html


def test_thumbnails_are_embedded_up_to_the_limit_then_linked(about: BatchPage) -> None:
    shown = data_of(page(rows(), replace(about, max_embedded=1)))["rows"]
    assert [row["thumb"][:10] for row in shown[:2]] == ["data:image", "out-report"]


def test_says_what_it_is(about: BatchPage) -> None:
    assert html_count(page(rows(), about), DISCLAIMER) == 2


def html_count(html: str, text: str) -> int:
    return html.count(text)


def test_no_text_ends_the_script_element() -> None:
    assert str(script_json({"a": "</script>&\u2028"})) == '{"a":"\\u003c/script\\u003e\\u0026\\u2028"}'
    assert json.loads(str(script_json("\udc80"))) == "\udc80"


def test_hostile_name_is_only_text(about: BatchPage) -> None:
    html = page([predicted(HOSTILE, "routine", 0.2)], replace(about, title=HOSTILE))
    assert "<img src=x" not in html
    assert html.count("</script>") == 2  # ours


@pytest.fixture
def shown(browser: Any, about: BatchPage, tmp_path: Path) -> Any:
    path = tmp_path / "out-report.html"
    path.write_text(page(rows(), about), encoding="utf-8")
    return opened(browser, path)


def names(browser: Any) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('.card')]"
        ".sort((a, b) => a.offsetTop - b.offsetTop || a.offsetLeft - b.offsetLeft).map((c) => c.dataset.id)"
    )


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def becomes(browser: Any, script: str, value: str) -> None:
    """Wait until the script gives the value."""
    for _ in range(500):
        found = browser.execute_script(script)
        if found == value:
            return
        time.sleep(0.02)
    raise AssertionError(f"{script}: {found}")


def choose(browser: Any, identity: str, value: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element(By.ID, identity)).select_by_value(value)


def test_gallery_renders_and_hostile_names_are_inert(shown: Any) -> None:
    assert names(shown)[:2] == ["worst.jpg", "bad.jpg"]
    assert len(names(shown)) == 6
    ready = "return document.querySelectorAll('canvas[data-ready]').length"
    end = time.monotonic() + 10
    while shown.execute_script(ready) < 10 and time.monotonic() < end:
        time.sleep(0.05)
    assert shown.execute_script(ready) == 10  # two halves of five images
    assert shown.title == "Predictions of out.csv"
    assert shown.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    texts = shown.execute_script("return [...document.querySelectorAll('.card')].map((c) => c.innerText)")
    assert any("map is all zero" in text for text in texts)
    assert any("quality: dark, hair" in text for text in texts)
    assert any("truncated: the image is truncated" in text for text in texts)
    assert any("by threshold, argmax NV" in text for text in texts)
    tick = "return document.querySelectorAll('.card .tick').length"
    assert shown.execute_script(tick) == 5  # MEL has a threshold, on every card with bars


def test_sorting_and_filters(shown: Any) -> None:
    choose(shown, "sort", "id")
    assert names(shown)[:2] == [HOSTILE, "bad.jpg"]
    choose(shown, "sort", "malignant")
    assert names(shown)[:2] == ["worst.jpg", "bad.jpg"]
    choose(shown, "class", "BKL")
    assert names(shown) == ["sub/odd name #1%20.jpg"]
    choose(shown, "class", "")
    shown.execute_script("document.querySelector('.tile.routine').click()")
    assert sorted(names(shown)) == sorted(["calm.jpg", HOSTILE])
    shown.execute_script("document.querySelector('.tile').click()")
    from selenium.webdriver.common.by import By

    shown.find_element(By.ID, "text").send_keys("truncated")
    assert names(shown) == ["broken.jpg"]


def test_keyboard_review_and_export(shown: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    for old in shown.downloads.glob("*"):
        old.unlink()
    press(shown, "a")  # worst.jpg: accepted as MEL
    press(shown, Keys.ARROW_RIGHT, "2")  # bad.jpg: it is NV, so BCC is wrong
    press(shown, Keys.ARROW_RIGHT, "d")  # odd name: wrong, class unknown
    press(shown, "n")
    press(shown, '=1+2, "quoted"', Keys.ENTER)
    press(shown, Keys.ARROW_RIGHT, "a")  # broken.jpg cannot be accepted
    press(shown, Keys.ARROW_RIGHT, "a", "u")  # taken back
    assert "3 reviewed" in shown.execute_script("return document.getElementById('count').textContent")
    choose(shown, "state", "disagree")
    assert sorted(names(shown)) == ["bad.jpg", "sub/odd name #1%20.jpg"]
    shown.execute_script("document.getElementById('export').click()")
    path, end = shown.downloads / "reviewed.csv", time.monotonic() + 10
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(r["image"], r["label"], r["review"], r["decision"]) for r in found] == [
        ("worst.jpg", "MEL", "accept", "MEL"),
        ("bad.jpg", "NV", "disagree", "BCC"),
        ("sub/odd name #1%20.jpg", "", "disagree", "BKL"),
    ]
    assert found[2]["note"] == '\'=1+2, "quoted"'
    assert {r["model_sha256"] for r in found} == {"ab"}


def test_review_survives_a_reload(shown: Any) -> None:
    pressed = (
        "return document.querySelector('.card[data-id=\"worst.jpg\"] .accept').getAttribute('aria-pressed')"
    )
    press(shown, "a")
    # The key arrives when the browser gets to it,
    # and on a busy machine the page may be told to reload before that.
    becomes(shown, pressed, "true")
    shown.refresh()
    becomes(shown, pressed, "true")


def test_large_view_opens_the_overlay(shown: Any, tmp_path: Path) -> None:
    from PIL import Image
    from selenium.webdriver.common.keys import Keys

    (tmp_path / "out-cam" / "sub").mkdir(parents=True)
    Image.new("RGB", (50, 40)).save(tmp_path / "out-cam" / "sub" / "odd name #1%20.jpg.cam.png")
    press(shown, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    end = time.monotonic() + 10
    width = "return document.getElementById('largeImage').naturalWidth"
    while not shown.execute_script(width) and time.monotonic() < end:
        time.sleep(0.05)
    assert shown.execute_script(width) == 50
    assert shown.execute_script("return document.getElementById('largeName').textContent") == (
        "sub/odd name #1%20.jpg"
    )


def test_five_thousand_rows_draw_only_what_is_seen(browser: Any, about: BatchPage, tmp_path: Path) -> None:
    many = [predicted(f"{k:05d}.jpg", "routine", k / 5000) for k in range(5000)]
    path = tmp_path / "many.html"
    path.write_text(page(many, replace(about, max_embedded=5000)), encoding="utf-8")
    opened(browser, path)
    assert 0 < len(names(browser)) < 60
    press(browser, "\ue010")  # End
    time.sleep(0.2)
    assert "00000.jpg" in names(browser)
    assert browser.execute_script("return document.querySelector('.card.current').dataset.id") == "00000.jpg"
