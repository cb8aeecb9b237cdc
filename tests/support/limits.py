"""How long a test waits for another process or thread: against hanging, not against a busy machine."""

from __future__ import annotations

from typing import Final

HANG_S: Final = 600.0
