"""How soon the page to review a batch can be used: seconds from opening 5,000 rows until it answers to keys.

    python examples/benchmarks/report_page.py --rows 5000

Needs selenium, Chromium and chromedriver. The page is opened from disk in a fresh profile; the time is from
the start of navigation until the gallery is drawn and a press of End has moved the selection.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]


def main() -> None:
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains

    from skinlesion_cli.explain.thumbnails import thumbnail
    from skinlesion_cli.inference.prediction import Prediction
    from skinlesion_cli.report.batch import BatchPage, page
    from skinlesion_cli.taxonomy import shipped

    classes = shipped("isic2018")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000, help="rows of the page (default 5000)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (450, 600, 3), dtype=np.uint8)
    picture = thumbnail(noise, rng.random((7, 7), dtype=np.float32))  # noise compresses worst
    rows = []
    for index in range(options.rows):
        p = rng.dirichlet(np.ones(7))
        rows.append(
            Prediction(
                id=f"folder/{index:06d}.jpg",
                probabilities=dict(zip(classes.codes, map(float, p), strict=True)),
                argmax=classes.codes[p.argmax()],
                decision=classes.codes[p.argmax()],
                malignant_probability=float(p[[0, 2, 3]].sum()),
                conformal_set=("MEL", "NV"),
                triage=("refer", "review", "routine")[index % 3],
                overlay=f"folder/{index:06d}.jpg.cam.png",
                overlay_magnitude=1.0,
            )
        )
    about = BatchPage(
        classes=classes,
        title="Benchmark",
        thumbnail=lambda identity: picture,
        thumbnail_url=lambda identity: f"thumbs/{identity}",
        overlay_url=lambda cam: cam,
        halves=True,
        thresholds={"MEL": 0.3},
        facts={},
        model_sha256="",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        began = time.perf_counter()
        html = page(rows, replace(about, max_rows=options.rows))
        made_s = time.perf_counter() - began
        path.write_text(html, encoding="utf-8")
        chrome = webdriver.ChromeOptions()
        chrome.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        flags = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        for flag in (*flags.split(), "--disable-dev-shm-usage", "--window-size=1280,900"):
            chrome.add_argument(flag)
        chrome.add_argument(f"--user-data-dir={folder}/profile")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(service=service, options=chrome)
        try:
            driver.get("about:blank")
            began = time.perf_counter()
            driver.get(path.as_uri())
            ActionChains(driver).send_keys("\ue010").perform()
            last = "return document.querySelector('.card.current').dataset.id"
            while driver.execute_script(last) == "":
                pass
            seconds = time.perf_counter() - began
            cards = driver.execute_script("return document.querySelectorAll('.card').length")
        finally:
            driver.quit()
    print(
        f"{options.rows:,} rows, {len(html) / 1e6:.1f} MB: made in {made_s:.2f} s, in use after "
        f"{seconds:.2f} s"
    )
    print(f"{cards} cards in the document")


if __name__ == "__main__":
    main()
