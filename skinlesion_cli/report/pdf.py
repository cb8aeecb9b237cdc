"""A page as PDF, printed by a headless Chromium that is installed already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.artifacts.own_files import PDF_MARK
from skinlesion_cli.errors import SkinLesionError, UsageError

# Chromium, and browsers built on it, by the names under which systems install them.
_NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("microsoft-edge", "msedge", "brave-browser"),
)
_MAC_APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_INSTALL = (
    "Install Chromium (Debian: `apt install chromium`; Fedora: `dnf install chromium`) or Google Chrome, "
    "name it in SKINLESION_CHROMIUM, or open the page of --report and print it from any browser."
)
_LONGEST_S = 300


def find_chromium() -> str:
    """The browser to print with: that of the environment variable SKINLESION_CHROMIUM, else an installed one.

    Raises
    ------
    UsageError : there is none; says what to install.
    """
    named = os.environ.get("SKINLESION_CHROMIUM")
    if named:
        if shutil.which(named) is None:
            raise UsageError(f"SKINLESION_CHROMIUM is {named}, which is not a program", _INSTALL)
        return named
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    for application in _MAC_APPLICATIONS if sys.platform == "darwin" else ():
        if os.access(application, os.X_OK):
            return application
    raise UsageError("writing a PDF needs Chromium or Chrome, and none was found", _INSTALL)


def print_page(page: Path, pdf: Path) -> None:
    """Print a page of this toolkit; its file and those beside it are all that the browser reads.

    Raises
    ------
    UsageError : there is no browser.
    SkinLesionError : it printed nothing, or the file cannot be written.
    """
    browser = find_chromium()
    with tempfile.TemporaryDirectory(prefix="skinlesion-print-") as folder:
        printed = Path(folder) / "page.pdf"
        command = [
            browser,
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-pdf-header-footer",
            # It prints when the page and its pictures are loaded. (A budget of virtual time would never end
            # where a file beside the page is missing.)
            f"--user-data-dir={Path(folder) / 'profile'}",
            f"--print-to-pdf={printed}",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # Chromium refuses to run as root with its sandbox. The page connects to nothing.
            command.append("--no-sandbox")
        try:
            done = subprocess.run(
                [*command, f"{page.resolve().as_uri()}#print"],
                capture_output=True,
                timeout=_LONGEST_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SkinLesionError(f"{browser} could not print {page.name}: {error}", _INSTALL) from None
        content = printed.read_bytes() if printed.is_file() else b""
        if not content.startswith(b"%PDF"):
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise SkinLesionError(f"{browser} printed nothing of {page.name}: {last[0]}", _INSTALL)
    # A comment behind the end, by which an earlier result is known.
    atomic_write(pdf, content + PDF_MARK)
