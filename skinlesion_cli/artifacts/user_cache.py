"""The user's cache folder, for files that can be created again and belong to no workspace."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from skinlesion_cli.errors import UsageError

VARIABLE = "SKINLESION_CACHE"


def user_cache() -> Path:
    """`SKINLESION_CACHE` if it is set, else `skinlesion` in the cache folder of the user's system.
    Nothing is created.

    Raises
    ------
    UsageError : this user has no home folder.
    """
    if folder := os.environ.get(VARIABLE):
        return Path(folder).absolute()
    try:
        path = platformdirs.user_cache_path("skinlesion", appauthor=False)
    except RuntimeError:  # of recent versions; earlier ones leave `~` as it is
        path = Path()
    if not path.is_absolute():
        raise UsageError("this user has no home folder for a cache", f"Set {VARIABLE} to a folder.")
    return path
