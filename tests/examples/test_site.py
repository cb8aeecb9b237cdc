"""The documents as a site, built strictly: every link and anchor leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Resources(HTMLParser):
    """Addresses of what a page loads by itself, and of its links."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("img", "script") and values.get("src"):
            self.loaded.append(str(values["src"]))
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(str(values["href"]))
        if tag == "a" and values.get("href"):
            self.linked.append(str(values["href"]))


def text(site: Path, page: str) -> str:
    return (site / page / "index.html").read_text("utf-8")


def test_nothing_comes_from_elsewhere_and_all_that_is_loaded_is_there(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 25
    missing, links = [], 0
    for page in pages:
        found = _Resources()
        found.feed(page.read_text("utf-8"))
        for address in [*found.loaded, *found.linked]:
            path = address.partition("#")[0].partition("?")[0]
            if address in found.loaded:
                assert not re.match(r"https?:|//", address), (page, address)
            if path and not re.match(r"[a-z]+:", path):
                links += 1
                if not (page.parent / path).resolve().exists():
                    missing.append((page.relative_to(site).as_posix(), address))
    assert missing == []
    assert links > 500


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    import typer.main

    from skinlesion_cli.cli.app import app

    shown = text(site, "reference/commands")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 16
    for name, command in commands.items():
        assert f"<code>skinlesion {name}</code>" in shown
        for parameter in command.params:
            for option in parameter.opts:
                assert f"<code>{option if option.startswith('-') else option.upper()}</code>" in shown or (
                    option == "--help"
                ), f"{name} {option}"


def test_every_column_setting_and_artifact_is_in_the_reference(site: Path) -> None:
    from skinlesion_cli.config.load import recipe_names
    from skinlesion_cli.config.schema import Recipe
    from tests.support.class_lists import TABLE

    columns = text(site, "reference/columns")
    assert [c.name for c in TABLE.columns if f"<code>{c.name}</code>" not in columns] == []
    recipes = text(site, "reference/recipes")
    names = [*recipe_names(), *Recipe.model_fields]
    assert [name for name in names if f"<code>{name}</code>" not in recipes] == []
    # What is said of a setting is the comment above it.
    assert "Images drawn per epoch, as a multiple of the training images." in recipes
    artifacts = text(site, "reference/artifacts")
    kinds = [
        "calibration",
        "checkpoint",
        "ensemble",
        "evaluation",
        "export",
        "gate",
        "manifest",
        "predictions",
    ]
    assert [kind for kind in kinds if f'id="{kind}"' not in artifacts] == []
    assert "<code>checkpoint_sha256</code>" in artifacts


def test_the_python_interface_comes_from_the_docstrings(site: Path) -> None:
    shown = text(site, "reference/python")
    for name in ("Classifier", "load", "predict", "Prediction"):
        assert re.search(rf'id="[\w.]*\b{name}"', shown), name
    assert "Load the finished ensemble of a workspace or a packed model" in shown


def test_the_readme_is_short_and_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 180
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"\]\((docs/[^)#]+\.md)", readme))
    # The last is the site's own beginning; the Python interface is all docstrings.
    assert pages - named == {"docs/index.md", "docs/reference/python.md"}
