"""The page of an evaluation, written by the stage, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.inference.tta import MODES
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.report.evaluation import class_counts, counted, few_words
from skinlesion_cli.report.plots_evaluation import class_style
from skinlesion_cli.stages.evaluate import stage
from skinlesion_cli.taxonomy import DISCLAIMER
from tests.support.class_lists import ISIC2018
from tests.support.tiny_models import make_workspace

HOSTILE = "</script><img src=x onerror=\"document.title='run'\">&amp;.jpg"
#        id        label  probability by class
IMAGES = {
    HOSTILE: ("MEL", {"MEL": 0.2, "NV": 0.8}),
    "right.jpg": ("NV", {"NV": 0.9, "BKL": 0.1}),
    "alarm.jpg": ("NV", {"NV": 0.4, "MEL": 0.6}),
    "found.jpg": ("BCC", {"BCC": 0.7, "NV": 0.3}),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of four images by a tiny ensemble whose predictions are made up."""
    workspace = Workspace(make_workspace(tmp_path_factory.mktemp("page") / "ws", archs=("tiny",)))
    generator = np.random.default_rng(0)
    for name in IMAGES:
        path = workspace.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    table = pd.DataFrame(
        {"id": name, "label": label, "lesion_id": f"L-{name}", "fold": ""}
        for name, (label, _) in IMAGES.items()
    )
    facts = {"sha256": "0" * 64, "age_years": "", "sex": "", "site": "<b>back</b>", "part": "test"}
    known = table.drop(columns="fold").assign(file=table["id"], source="made", **facts)
    Manifest(known, "none", "none", classes=ISIC2018).save(workspace.manifest)
    values = [[given.get(name, 0.0) for name in ISIC2018.codes] for _, given in IMAGES.values()]
    views = np.repeat(np.array(values, np.float32)[:, None], 8, axis=1)
    Predictions(table, views, MODES["d4"], "ensemble", "test", classes=ISIC2018).save(
        workspace.ensemble_predictions("test"),
        inputs={"ensemble": Ensemble.load(workspace.ensemble).artifact},
    )
    folder = workspace.root / "evaluation"
    stage.run(
        stage.EvaluateSettings(workspace=workspace.root, n_resamples=20, output=folder, report=True),
        SilentReporter(),
    )
    return folder


def texts(browser: Any, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", selector
    )


def test_opens_offline_and_says_what_the_evaluation_found(browser: Any, written: Path) -> None:
    browser.get((written / "report.html").as_uri())
    assert browser.title == "Evaluation of ensemble"
    assert texts(browser, "h1") == ["Evaluation of ensemble, test part"]
    assert sum(text.count(DISCLAIMER) for text in texts(browser, "header, footer")) == 2
    rows = [text.split("\t") for text in texts(browser, ".matrix tr")]
    assert rows[1:4] == [
        ["MEL", "0", "1", "0", "0", "0", "0", "0"],
        ["NV", "1", "1", "0", "0", "0", "0", "0"],
        ["BCC", "0", "0", "1", "0", "0", "0", "0"],
    ]
    # Sensitivities 0, 1/2 and 1; the other classes have no images.
    headline = dict(text.split("\t") for text in texts(browser, "main > table.grid:first-of-type tr"))
    # Four lesions are too few for any rate.
    assert headline["balanced accuracy"].strip() == "too few to say"
    assert headline["accuracy"].strip() == "too few to say (2 of 4)"
    assert headline["malignant or not: image sensitivity"].strip() == "too few to say (1 of 2)"
    assert "site: <b>back</b>" in texts(browser, "th[scope=row]")
    widths = "return [...document.images].map((i) => i.naturalWidth)"
    shown = browser.execute_script(widths)
    assert len(shown) == 6  # four curves, two errors
    # A picture of 40 x 30 at a height of 200, and two maps of it.
    assert shown[4:] == [3 * 267, 3 * 267]
    assert min(shown) > 100
    facts = dict(text.split("\t") for text in texts(browser, ".facts tr"))
    assert facts["thresholds"] == "AKIEC 0.400, MEL 0.300"
    assert len(facts["evaluation"]) == 64


def test_worst_errors_come_first_and_names_with_html_are_inert(browser: Any, written: Path) -> None:
    browser.get((written / "report.html").as_uri())
    captions = texts(browser, ".errors figcaption")
    assert captions == [f"MEL (0.20) called NV (0.80)\n{HOSTILE}", "NV (0.40) called MEL (0.60)\nalarm.jpg"]
    sources = browser.execute_script("return [...document.images].map((i) => i.getAttribute('src'))")
    assert all(source.startswith("data:image/") for source in sources)
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.title == "Evaluation of ensemble"


def test_a_table_from_elsewhere_whose_name_is_html(browser: Any, tmp_path: Path) -> None:
    source = tmp_path / "<img src=x onerror=\"document.title='run'\">.csv"
    source.write_text(
        f"image,{','.join(ISIC2018.codes)},label\n<script>bad()</script>,1,0,0,0,0,0,0,NV\nb,1,0,0,0,0,0,0,MEL\n"
    )
    config = stage.EvaluateSettings(
        workspace=tmp_path / "ws", source=str(source), n_resamples=0, output=tmp_path / "e", report=True
    )
    stage.run(config, SilentReporter())
    browser.get((tmp_path / "e" / "report.html").as_uri())
    assert browser.title == f"Evaluation of {source}"
    assert texts(browser, ".errors figcaption") == ["NV (0.00) called MEL (1.00)\n<script>bad()</script>"]
    assert browser.execute_script("return document.querySelectorAll('img[src=x], script').length") == 0
    assert "no finished ensemble fits them" in texts(browser, ".facts")[0]


def test_rates_stand_beside_counts_and_few_of_them_alone() -> None:
    rate = {"value": 0.85, "low": 0.7, "high": 0.95}
    assert counted(rate, (17, 20), 12) == "0.850 (0.700 to 0.950), 17 of 20"
    # Twenty photographs of nine lesions are nine.
    assert counted(rate, (17, 20), 9) == "too few to say (17 of 20)"
    assert counted(rate, (3, 4), 12) == "too few to say (3 of 4)"
    assert counted(rate, None, 10) == "0.850 (0.700 to 0.950)"
    assert counted({"value": None}, (0, 0), 0) == "undefined"


def test_counts_of_a_class_by_hand() -> None:
    matrix = np.zeros((7, 8), int)
    # Of 10 melanomas 7 are called so and 1 is called nothing at all; of 30 nevi 4 are called melanoma.
    matrix[0, [0, 1, 7]] = 7, 2, 1
    matrix[1, [0, 1]] = 4, 26
    assert class_counts(matrix.tolist(), "MEL", ISIC2018) == {
        "sensitivity": (7, 10),
        "specificity": (26, 30),
        "ppv": (7, 11),
        "npv": (26, 29),
    }


def test_classes_with_few_lesions_are_named() -> None:
    assert few_words({"MEL": 9, "NV": 10, "DF": 0}).endswith("fewer than 10 lesions: MEL (9).")
    assert few_words({"MEL": 10}) == ""


def test_curves_differ_without_colour() -> None:
    styles = [class_style(index, ISIC2018) for index in range(7)]
    assert len({str(style["linestyle"]) for style in styles}) == 7
    assert len({style["marker"] for style in styles}) == 7


def test_figures_stay_on_one_line(browser: Any, written: Path) -> None:
    browser.get((written / "report.html").as_uri())
    wrap = (
        "return [...document.querySelectorAll('.grid td')].map((cell) => getComputedStyle(cell).whiteSpace)"
    )
    assert set(browser.execute_script(wrap)) == {"nowrap"}
    assert "image sensitivity" in texts(browser, "thead")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_an_evaluation(browser: Any, written: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        browser.get((written / "report.html").as_uri())
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(34, 38, 43)"}[scheme]
        # The page forbids scripts; what the driver runs is not the page's.
        browser.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text("utf-8"))
        violations = browser.execute_async_script(
            "axe.run(document).then((r) => arguments[0](r.violations.map((v) => [v.id, v.nodes[0].html])))"
        )
        assert violations == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [400, 1000])
def test_an_evaluation_never_scrolls_sideways_as_a_whole(browser: Any, written: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get((written / "report.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        # A wide table scrolls by itself, and the name of its row stays where it is.
        moved = "const s = document.querySelector('.scroll'); s.scrollLeft = 9999; return s.scrollLeft"
        assert browser.execute_script(moved) > 0
        inset = (
            "const s = document.querySelector('.scroll');"
            "return s.querySelector('tr > th').getBoundingClientRect().left - s.getBoundingClientRect().left"
        )
        assert browser.execute_script(inset) == pytest.approx(0, abs=1)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
