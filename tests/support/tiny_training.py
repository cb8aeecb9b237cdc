"""The settings with which tests train the tiny network in a second or two."""

from __future__ import annotations

from typing import Final

TINY: Final = (
    *("--arch", "tiny", "--weights", "none", "--workers", "0", "--recipe", "light"),
    *("--set", "input_size_px=32", "--set", "progressive_sizes_px=[]", "--set", "cache_size_px=40"),
    *("--set", "harmonise_px=null"),
)
