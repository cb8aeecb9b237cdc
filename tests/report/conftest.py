"""A headless browser that records what it asks the network for, and rows to show in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skinlesion_cli.decisions.triage import DecisionRule, RiskLevels
from skinlesion_cli.decisions.triage_policy import triage_policy
from skinlesion_cli.explain.thumbnails import thumbnail
from skinlesion_cli.inference.prediction import ERROR, Prediction
from skinlesion_cli.report.batch import BatchPage
from tests.support.class_lists import ISIC2018

RULE = DecisionRule(ISIC2018, alarms={"MEL": 0.3}, levels=RiskLevels(refer_above=0.45, routine_at_most=0.02))
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
]


@pytest.fixture(scope="session")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no Chromium with chromedriver here (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService(chromedriver), options=options)
    downloads = tmp_path_factory.mktemp("downloads")
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture
def browser(_driver: Any) -> Iterator[Any]:
    """A driver; after the test there must be no message on the console and no request off this machine."""
    _driver.get_log("browser"), _driver.get_log("performance")
    yield _driver
    assert [entry["message"] for entry in _driver.get_log("browser")] == []
    asked = [json.loads(entry["message"])["message"] for entry in _driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    # The browser may still be loading pages of its own when the first test begins.
    urls = [url for url in urls if not url.startswith("chrome://")]
    assert [url for url in urls if url.split(":")[0] not in ("file", "data", "blob")] == []
    assert urls, "the browser's log of requests is empty: nothing was checked"


def predicted(
    identity: str, triage: str, malignant: float, decision: str = "NV", **changes: Any
) -> Prediction:
    """A prediction with 0.4 for the decided class and 0.1 for each other."""
    values: dict[str, Any] = {
        "probabilities": {name: 0.4 if name == decision else 0.1 for name in ISIC2018.codes},
        "argmax": decision,
        "decision": decision,
        "malignant_probability": malignant,
        "conformal_set": (decision,),
        "triage": triage,
        "triage_reason": f"malignant probability {malignant:.2f}, made up",
        "quality": (),
        "forward_passes": 16,
        "overlay": f"{identity}.cam.png",
        "overlay_magnitude": 0.5,
        "model": "m",
        "model_sha256": "ab",
    }
    return Prediction(id=identity, **(values | changes))


def failed(identity: str, error: str) -> Prediction:
    return Prediction(id=identity, status=ERROR, error=error)


@pytest.fixture(scope="session")
def small_picture() -> bytes:
    image = np.full((30, 40, 3), (200, 150, 130), np.uint8)
    return thumbnail(image, np.array([[0.0, 1.0], [0.0, 0.0]], np.float32))


@pytest.fixture
def about(small_picture: bytes) -> BatchPage:
    return BatchPage(
        title="Predictions of out.csv",
        thumbnail=lambda identity: small_picture,
        thumbnail_url=lambda identity: f"out-report/{identity}",
        overlay_url=lambda cam: f"out-cam/{cam}",
        halves=True,
        thresholds={"MEL": 0.3},
        policy=triage_policy(RULE, has_gate=True),
        facts={"model": "tiny"},
        model_sha256="ab",
        classes=ISIC2018,
    )


def opened(browser: Any, path: Path) -> Any:
    """Open a page and wait until it says that it is ready."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(path.as_uri())
    WebDriverWait(browser, 20).until(lambda b: b.execute_script("return document.body.dataset.ready === '1'"))
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    WebDriverWait(browser, 20).until(lambda b: b.execute_script("return document.body.dataset.ready === '1'"))
    return browser
