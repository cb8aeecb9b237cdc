"""Pin what is installed here: every package that skinlesion and its tested extras need,
in its installed version.

    python examples/constraints.py > constraints.txt       # in the environment in which the tests have passed

Walks the requirements from pyproject.toml on, so packages that are installed for other reasons are left out.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# What continuous integration installs.
EXTRAS = (
    "weights",
    "onnx",
    "openvino",
    "dicom",
    "heif",
    "parquet",
    "dask",
    "ray",
    "edge-openvino",
    "edge-executorch",
    "browser",
    "challenge",
    "tensorboard",
    "lora",
    "docs",
    "dev",
)
HEAD = """\
# The dependencies with which the tests passed: Python {python} on {platform}.
# Made by `python examples/constraints.py > constraints.txt`; \
use: pip install -c constraints.txt 'skinlesion[EXTRAS]'
# Extras covered: {extras}
"""


def required(project: dict) -> list[Requirement]:
    """The base requirements and those of the tested extras."""
    optional = project["optional-dependencies"]
    lines = project["dependencies"] + [line for extra in EXTRAS for line in optional[extra]]
    return [Requirement(line) for line in lines]


def pinned(requirements: list[Requirement]) -> tuple[dict[str, str], set[str]]:
    """Name to installed version of all that these need, and the names of what is not installed."""
    versions: dict[str, str] = {}
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    todo = [(requirement, "") for requirement in requirements]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        versions[name] = found.version
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(Requirement(line), wanted) for line in found.requires or []]
    return versions, missing


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions, missing = pinned(required(project))
    if missing:
        sys.exit(f"not installed: {', '.join(sorted(missing))}; install '.[{','.join(EXTRAS)}]' first")
    python = ".".join(map(str, sys.version_info[:3]))
    print(HEAD.format(python=python, platform=sys.platform, extras=", ".join(EXTRAS)), end="")
    for name, version in sorted(versions.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
