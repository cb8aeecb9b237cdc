"""Where a user's cache lies on each system, and that asking creates nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.artifacts import user_cache as place
from skinlesion_cli.errors import UsageError

VARIABLES = ("SKINLESION_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"SKINLESION_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/skinlesion"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/of/.cache/skinlesion"),
        ("linux", {"LOCALAPPDATA": "/local"}, "/home/of/.cache/skinlesion"),
        ("darwin", {}, "/home/of/Library/Caches/skinlesion"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/skinlesion/cache"),
    ],
)
def test_the_folder_of_each_system(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(place.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/of"))
    assert place.user_cache() == Path(expected)
    assert not Path(expected).exists()


def test_a_user_without_a_home_is_told_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def without_lesion() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", without_lesion)
    with pytest.raises(UsageError, match="no home folder") as told:
        place.user_cache()
    assert told.value.hint == "Set SKINLESION_CACHE to a folder."
