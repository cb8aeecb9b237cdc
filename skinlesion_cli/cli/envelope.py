"""The JSON that every command prints with `--json`, for results and for errors: one envelope.

`envelope.schema.json` beside this file describes it (JSON Schema 2020-12) and is installed with the package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion_cli.errors import ExitCode
from skinlesion_cli.taxonomy import DISCLAIMER

if TYPE_CHECKING:
    from skinlesion_cli.result import StageResult

SCHEMA_NAME = "skinlesion.result/1"
SCHEMA_FILE = Path(__file__).with_name("envelope.schema.json")


def of_result(result: StageResult) -> dict[str, Any]:
    """The envelope of a completed command; `partial` if some inputs failed."""
    return _envelope(
        result.command,
        "ok" if result.exit_code is ExitCode.OK else "partial",
        result.exit_code,
        figures=dict(result.figures),
        artifacts=list(result.artifacts),
        warnings=list(result.warnings),
        next=result.next_command,
    )


def of_error(command: str | None, exit_code: int, message: str, hint: str = "") -> dict[str, Any]:
    """The envelope of a failed command; `command` is None if there is no such command."""
    return _envelope(command, "error", exit_code, message=message, hint=hint or None)


def write(envelope: dict[str, Any], *, aside: bool = False) -> None:
    """Print it on stdout. `aside`: on stderr, because stdout carries rows."""
    text = json.dumps(envelope, indent=1, allow_nan=False, ensure_ascii=True)
    print(text, file=sys.stderr if aside else sys.stdout, flush=True)


def _envelope(command: str | None, status: str, exit_code: int, **parts: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "message": None,
        "hint": None,
        "figures": {},
        "artifacts": [],
        "warnings": [],
        "next": None,
    }
    head = {"schema": SCHEMA_NAME, "command": command, "status": status, "exit_code": int(exit_code)}
    return {**head, **empty, **parts, "disclaimer": DISCLAIMER}
