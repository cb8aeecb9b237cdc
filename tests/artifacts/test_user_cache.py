"""Where a user's cache is, that it is where earlier versions had it, and that asking creates nothing."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS

from skinlesion_cli.artifacts.user_cache import user_cache
from skinlesion_cli.errors import UsageError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("SKINLESION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SKINLESION_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/skinlesion"),
        ({"XDG_CACHE_HOME": "relative"}, "HOME/.cache/skinlesion"),
        ({}, "HOME/.cache/skinlesion"),
    ],
)
def test_the_folder_on_linux(
    variables: dict[str, str], expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_cache() == Path(expected.replace("HOME", str(home)))
    assert not home.exists()


def test_a_relative_folder_is_relative_to_the_current_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKINLESION_CACHE", "own")
    assert user_cache() == tmp_path / "own"


def test_macos_has_the_folder_of_earlier_versions(home: Path) -> None:
    assert MacOS("skinlesion", appauthor=False).user_cache_path == home / "Library/Caches/skinlesion"


def test_a_number_that_is_no_user_of_this_system_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --user 12345`, without HOME."""
    pwd = pytest.importorskip("pwd")

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "SKINLESION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UsageError, match="no home folder"):
        user_cache()


def test_a_user_without_a_home_is_told_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/skinlesion"))
    with pytest.raises(UsageError, match="no home folder") as refused:
        user_cache()
    assert refused.value.hint == "Set SKINLESION_CACHE to a folder."
