"""What mkdocs does beside rendering `docs/`: generated pages, and the other documents of the repository.

The reference of commands, columns, recipes and artifacts is made at build time and never stored. Every other
document of the repository appears below `project/` under its own path, and links between them and `docs/` are
rewritten, so that the same link works in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "project"
# README.md has a page of its own here.
SITE_PAGES = {"README.md": "index.md"}
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def documents() -> list[Path]:
    """Markdown files of the repository outside `docs/`, relative to it."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("configs/*.md"), *ROOT.glob("examples/**/*.md")]
    found += [ROOT / "tests" / "faults" / "FAULTS.md"]
    relative = (path.relative_to(ROOT) for path in found if path.is_file())
    return sorted(path for path in relative if path.as_posix() not in SITE_PAGES)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the documents of the repository, with the files that these link to."""
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
    import reference_pages

    for name, text in reference_pages.pages().items():
        files.append(File.generated(config, name, content=text))
    for document in documents():
        files.append(
            File.generated(
                config, f"{PROJECT}/{document.as_posix()}", content=(ROOT / document).read_text("utf-8")
            )
        )
    linked: set[str] = set()
    for page in [file for file in files if file.src_uri.endswith(".md")]:
        text = page.content_string
        linked |= {
            target for target in _targets(text, _in_repository(page.src_uri)) if (ROOT / target).is_file()
        }
    for target in sorted(linked):
        if _on_site(target) is None and not target.endswith(".md"):
            files.append(File.generated(config, f"{PROJECT}/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Rewrite links from places in the repository to places on the site."""
    here = _in_repository(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        target = _resolved(match[2], here)
        if target is None:
            return match[0]
        place = _on_site(target) or f"{PROJECT}/{target}"
        link = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{link}{match[3] or ''}{match[4]}"

    parts = _CODE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(rewritten, part) for number, part in enumerate(parts))


def _in_repository(page: str) -> str:
    """Path of a page's source below the repository."""
    return page.removeprefix(f"{PROJECT}/") if page.startswith(f"{PROJECT}/") else f"docs/{page}"


def _on_site(target: str) -> str | None:
    """Page of the site for a path in the repository, where `docs/` has one."""
    if target in SITE_PAGES:
        return SITE_PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else None


def _resolved(link: str, here: str) -> str | None:
    """Path below the repository that a link in the file `here` leads to; None for the web and for folders."""
    if re.match(r"[a-z]+:|/", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    return None if target.startswith("..") else target


def _targets(text: str, here: str) -> set[str]:
    parts = _CODE.split(text)[::2]
    found = (_resolved(match[2], here) for part in parts for match in _LINK.finditer(part))
    return {target for target in found if target}
