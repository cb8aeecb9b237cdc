"""What publishes the project can only run on its host: here it is checked against schemas and linters."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from skinlesion_cli import __version__
from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / name for name in ("problem.yml", "wish.yml")]


def jobs() -> dict[str, Any]:
    """All jobs by workflow and name, such as `tests/lint`."""
    return {
        f"{path.stem}/{name}": job
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text("utf-8"))["jobs"].items()
    }


def check(tool: str, *arguments: object) -> None:
    if not (BIN / tool).exists():
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [BIN / tool, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


def loaded(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [FORMS[0].with_name("config.yml")]),
        ("dependabot", [ROOT / ".github" / "dependabot.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
        ("compose-spec", [ROOT / "examples" / "watch" / "compose.yaml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_file_has_the_form_that_its_reader_expects(schema: str, files: list[Path]) -> None:
    assert files
    check("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


def test_workflows_have_no_known_weakness() -> None:
    check("zizmor", "--offline", ".github")


def test_the_container_is_built_as_is_recommended() -> None:
    check("hadolint", "Dockerfile")


def test_the_container_copies_what_exists_and_what_is_not_ignored() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    sources = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for name in line.split()
    }
    assert {"skinlesion_cli", "configs", "pyproject.toml", "constraints.txt"} <= sources
    assert [name for name in sources if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    assert {f"!{name}" for name in sources} <= set(ignored)


def test_jobs_run_scripts_that_exist() -> None:
    steps = [step for job in jobs().values() for step in job.get("steps", [])]
    commands = "\n".join(step.get("run", "") for step in steps)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"make ([\w-]+)", commands)
    assert set(targets) == {"lint", "release-check"}
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
    extras = re.findall(r"\.\[([\w,]+)\]", commands)
    assert extras
    assert set(",".join(extras).split(",")) <= set(PROJECT["optional-dependencies"])
    assert "bash .ci/run" in commands


def test_nothing_is_published_before_what_can_fail_has_run() -> None:
    needs = {name: job.get("needs", []) for name, job in jobs().items()}
    assert needs["release/build"] == "tests"
    assert needs["release/container"] == "build"
    # A version on PyPI cannot be replaced.
    assert set(needs["release/pypi"]) == {"build", "container"}
    assert needs["docs/deploy"] == "build"


def test_only_what_publishes_may_write() -> None:
    writing = {
        name: {right for right, access in job.get("permissions", {}).items() if access == "write"}
        for name, job in jobs().items()
    }
    assert {name: rights for name, rights in writing.items() if rights} == {
        "docs/deploy": {"pages", "id-token"},
        "release/pypi": {"id-token"},
        "release/container": {"packages"},
        "release/notes": {"contents"},
    }
    assert [loaded(path)["permissions"] for path in WORKFLOWS] == [{"contents": "read"}] * len(WORKFLOWS)


def test_the_unit_for_systemd_is_valid(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    text = (ROOT / "examples" / "watch" / "skinlesion-watch.service").read_text("utf-8")
    program = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)
    assert program
    unit = tmp_path / "skinlesion-watch.service"
    unit.write_text(text.replace(program[1], "/bin/true"), encoding="utf-8")
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=HANG_S)
    if "initialize manager" in done.stderr:
        pytest.skip(f"systemd cannot check units here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_every_stated_python_is_tested() -> None:
    stated = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    jobs = loaded(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert set(jobs["linux"]["strategy"]["matrix"]["python"]) == stated
    assert set(jobs["other-systems"]["strategy"]["matrix"]["python"]) <= stated


def test_classifiers_are_known_to_the_index() -> None:
    trove = pytest.importorskip("trove_classifiers")
    assert [line for line in PROJECT["classifiers"] if line not in trove.classifiers] == []
    assert (ROOT / "skinlesion_cli" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_citation_is_of_this_version() -> None:
    citation = loaded(ROOT / "CITATION.cff")
    assert str(citation["version"]) == __version__
    assert citation["license"] in PROJECT["license"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_what_doctor_says(form: Path) -> None:
    labels = [field["attributes"].get("label", "") for field in loaded(form)["body"]]
    assert any("skinlesion doctor --json" in label for label in labels)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("examples/images/ISIC_0024306.jpg", True),
        ("patients/scan.DCM", True),
        ("skinlesion_cli/report/logo.png", True),
        ("examples/images/GEN_0000003.jpg", False),
        ("examples/screenshots/batch-report.png", False),
        ("skinlesion_cli/report/page.py", False),
    ],
)
def test_images_of_patients_are_not_committed(name: str, refused: bool) -> None:
    hooks = [hook for repo in loaded(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    (hook,) = (hook for hook in hooks if hook["id"] == "no-images-of-patients")
    assert hook["language"] == "fail"
    kept = re.search(hook["files"], name) and not re.search(hook["exclude"], name)
    assert bool(kept) == refused
