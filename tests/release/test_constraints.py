"""The tested versions cover everything that is required, and fit its bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import constraints
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PINNED = dict(line.split("==") for line in LINES if not line.startswith("#"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("requirement", constraints.required(PROJECT), ids=str)
def test_everything_required_is_pinned_within_its_bounds(requirement: Requirement):
    version = PINNED[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_the_base_requirements_are_among_them():
    names = {requirement.name for requirement in constraints.required(PROJECT)}
    assert {"torch", "timm", "grad-cam", "pillow"} <= names
    assert {Requirement(line).name for line in PROJECT["dependencies"]} <= names


def test_the_head_names_the_command_that_made_it():
    assert "python examples/constraints.py > constraints.txt" in "\n".join(LINES[:3])


def test_what_they_need_in_turn_is_pinned_too():
    assert {"sympy", "jinja2", "opencv-python-headless", "pydantic-core", "threadpoolctl"} <= set(PINNED)


def test_an_extra_is_followed_and_another_platform_is_not():
    versions, missing = constraints.pinned(
        [Requirement("dask[distributed]"), Requirement("no-such-package; sys_platform == 'nowhere'")]
    )
    assert missing == set()
    assert {"dask", "distributed", "tornado"} <= set(versions)


def test_what_is_not_installed_is_told():
    assert constraints.pinned([Requirement("no-such-package")]) == ({}, {"no-such-package"})
