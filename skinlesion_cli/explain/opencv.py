"""OpenCV, imported when the first picture is drawn: predictions without maps must not wait for it."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def opencv() -> Any:
    """The module `cv2`. Images are drawn side by side, each by one thread, so it starts none of its own."""
    import cv2

    cv2.setNumThreads(0)
    return cv2
