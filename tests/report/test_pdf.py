"""Pages as PDF: printed whole by Chromium, or an error that says what to install."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.own_files import is_pdf
from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.report.batch import BatchPage, page
from skinlesion_cli.report.pdf import find_chromium, print_page
from tests.report.conftest import predicted
from tests.support import tiny_models
from tests.support.command_line import run

pytestmark = pytest.mark.command_line


@pytest.fixture
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKINLESION_CHROMIUM", raising=False)
    monkeypatch.setattr("skinlesion_cli.report.pdf.shutil.which", lambda name: None)
    monkeypatch.setattr("skinlesion_cli.report.pdf.sys.platform", "linux")


def test_without_a_browser_it_says_what_to_install_before_it_predicts(
    no_browser: None, tiny_model: Path, tmp_path: Path
) -> None:
    images = tiny_models.make_images(tmp_path / "in", 1)
    done = run(
        "predict", images, "-w", tiny_model, "-o", tmp_path / "out.csv", "--report-pdf", tmp_path / "out.pdf"
    )
    assert done.exit_code == 2
    assert "apt install chromium" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_browser_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKINLESION_CHROMIUM", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="SKINLESION_CHROMIUM"):
        find_chromium()
    # A program that prints nothing.
    monkeypatch.setenv("SKINLESION_CHROMIUM", shutil.which("true") or "true")
    with pytest.raises(SkinLesionError, match="printed nothing"):
        print_page(tmp_path / "x.html", tmp_path / "x.pdf")
    assert not (tmp_path / "x.pdf").exists()


@pytest.fixture
def chromium() -> None:
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        pytest.skip("no Chromium here")


def streams(pdf: bytes) -> bytes:
    """The unpacked streams of a PDF."""
    packed = re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S)
    return b"".join(zlib.decompressobj().decompress(each) for each in packed if each[:1] == b"x")


def n_pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.slow
@pytest.mark.usefixtures("chromium")
def test_every_image_of_a_batch_is_printed(about: BatchPage, tmp_path: Path) -> None:
    html = tmp_path / "out-report.html"
    sizes = []
    for count in (1, 30):
        html.write_text(
            page([predicted(f"{k}.jpg", "refer", 0.5) for k in range(count)], about), encoding="utf-8"
        )
        print_page(html, tmp_path / "out.pdf")
        content = (tmp_path / "out.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        sizes.append(n_pages(content))
        # The thumbnails are in it, as pictures.
        assert content.count(b"/Subtype /Image") >= 1
    # Cards of thirty images fill more than one sheet.
    assert sizes[1] >= sizes[0] + 3
    assert is_pdf(tmp_path / "out.pdf")
    assert streams(content)


@pytest.mark.slow
@pytest.mark.usefixtures("chromium")
def test_predict_prints_its_page_and_replaces_only_its_own(tiny_model: Path, tmp_path: Path) -> None:
    images = tiny_models.make_images(tmp_path / "in", 2)
    options = ("predict", images, "-w", tiny_model, "-o", tmp_path / "out.csv", "--report-pdf")
    done = run(*options, tmp_path / "out.pdf")
    assert done.exit_code == 0, done.output
    assert is_pdf(tmp_path / "out.pdf")
    assert (tmp_path / "out-report.html").is_file()
    (tmp_path / "other.pdf").write_bytes(b"%PDF-1.4 somebody else's")
    assert run(*options, tmp_path / "other.pdf").exit_code == 2
    assert (tmp_path / "other.pdf").read_bytes() == b"%PDF-1.4 somebody else's"
