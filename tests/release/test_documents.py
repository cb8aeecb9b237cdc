"""Documents point at what is there: links, sections, tests, and every item of the reporting standards."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORTING = ROOT / "examples" / "reporting"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "examples").rglob("*.md"), *(ROOT / "configs").glob("*.md")])
TRIPOD_AI = """1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16
    17 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"""
STANDARDS = {"TRIPOD-AI.md": TRIPOD_AI.split(), "CLAIM.md": [str(n) for n in range(1, 45)]}


def rows(name: str) -> list[list[str]]:
    """Cells of the table in a document of examples/reporting, without its head."""
    lines = [line for line in (REPORTING / name).read_text("utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def anchors(text: str) -> set[str]:
    """Names by which headings can be linked to."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path):
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        found = document.parent / path if path else document
        if not found.exists() or (anchor and anchor not in anchors(found.read_text("utf-8"))):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("name", STANDARDS)
def test_every_item_of_a_standard_is_answered(name: str):
    table = rows(name)
    assert [row[0] for row in table] == STANDARDS[name]
    for item, _, reported, where, missing in table:
        assert reported in ("yes", "partly", "no", "n/a"), item
        assert bool(where) == (reported in ("yes", "partly")), item
        assert missing or reported == "yes", item


@pytest.mark.parametrize("name", STANDARDS)
def test_sections_that_are_named_exist(name: str):
    where = "\n".join(row[3] for row in rows(name))
    card = set(
        re.findall(r"^## (.+)$", (ROOT / "examples" / "model_card.md.j2").read_text("utf-8"), re.MULTILINE)
    )
    page = set(
        re.findall(
            r"<h2>(.+?)</h2>", (ROOT / "skinlesion_cli/report/pages/evaluation.html").read_text("utf-8")
        )
    )
    readme = set(re.findall(r"^## (.+)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    for kind, there in {"card": card, "page": page, "README": readme}.items():
        named = set(re.findall(rf'\b{kind} "(.+?)"', where))
        assert named - there == set(), kind
    assert len(re.findall(r'\bcard "', where)) > 20


def test_every_hazard_names_tests_that_exist_and_says_what_remains():
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    hazards = rows("HAZARDS.md")
    assert [row[0] for row in hazards] == [str(n) for n in range(1, len(hazards) + 1)]
    assert len(hazards) >= 16
    for row in hazards:
        assert len(row) == 6
        assert all(row), row[0]
        named = re.findall(r"`(test_\w+)`", row[4])
        assert named, row[0]
        assert [name for name in named if name not in defined] == []
