"""What `skinlesion info` is asked."""

from __future__ import annotations

from pathlib import Path

from skinlesion_cli.config.settings import StageSettings


class InfoSettings(StageSettings):
    """The workspace to describe."""

    workspace: Path
