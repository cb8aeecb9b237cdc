"""The user's cache folder, for files that can be created again and belong to no workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from skinlesion_cli.errors import UsageError

VARIABLE = "SKINLESION_CACHE"


def user_cache() -> Path:
    """`SKINLESION_CACHE`, else `skinlesion` in the user's folder for caches. Nothing is created.

    That folder is `XDG_CACHE_HOME` where it is set (the specification has relative paths ignored), `LOCALAPPDATA`
    on Windows, `~/Library/Caches` on macOS and `~/.cache` elsewhere.

    Raises
    ------
    UsageError : this user has no home folder.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "skinlesion"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "skinlesion" / "cache"
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder for a cache", f"Set {VARIABLE} to a folder.") from None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "skinlesion"
