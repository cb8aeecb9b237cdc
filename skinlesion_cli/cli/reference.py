"""The command reference of the README, generated from the commands.

    python -m skinlesion_cli.cli.reference README.md

puts it between the two marker lines of the file. A test fails when it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from skinlesion_cli.cli.choices import with_names
from skinlesion_cli.cli.narrow import MARKUP

BEGIN = "<!-- command reference: begin (python -m skinlesion_cli.cli.reference README.md) -->"
END = "<!-- command reference: end -->"
_COMMON = ("--workspace", "--json", "--quiet", "--debug", "--help")


def reference() -> str:
    """Markdown with every command: what it does, examples, arguments and options."""
    import typer.main

    import skinlesion_cli.cli.app  # noqa: F401, registers the commands
    from skinlesion_cli.cli.root import app

    group: Any = typer.main.get_command(app)
    parts = []
    common: dict[str, str] = {}
    for name in sorted(group.commands):
        command = group.commands[name]
        parts.append(_command(name, command))
        common |= {_names(p): _describe(p) for p in command.params if _is_common(p)}
    shared = "\n".join(f"| {names} | {text} |" for names, text in common.items())
    parts.append(f"### Options of every command\n\n| option | meaning |\n|---|---|\n{shared}\n")
    parts.append(_columns())
    return "\n".join(parts)


def _columns() -> str:
    """The table that `predict` writes."""
    from skinlesion_cli.inference.prediction import COLUMNS

    rows = "\n".join(f"| `{c.name}` | {c.kind} | {c.meaning.replace('|', chr(92) + '|')} |" for c in COLUMNS)
    return f"### Columns of the predictions\n\n| column | type | meaning |\n|---|---|---|\n{rows}\n"


def _command(name: str, command: Any) -> str:
    about, _, examples = command.help.partition("[bold]Examples[/bold]")
    lines = [MARKUP.sub("", line).strip() for line in examples.splitlines()]
    shown = "\n".join(line for line in lines if line)
    own = [p for p in command.params if not _is_common(p)]
    rows = "\n".join(f"| {_names(p)} | {_describe(p)} |" for p in own)
    table = f"\n| option | meaning |\n|---|---|\n{rows}\n" if rows else ""
    return f"### `skinlesion {name}`\n\n{about.strip()}\n\n```sh\n{shown}\n```\n{table}"


def _is_common(parameter: Any) -> bool:
    return any(option in _COMMON for option in parameter.opts)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{option}`" for option in parameter.opts)


def _describe(parameter: Any) -> str:
    text = with_names(parameter.help or "").replace("|", "\\|")
    notes = []
    if parameter.required:
        notes.append("required")
    elif parameter.default not in (None, False, (), []) and not callable(parameter.default):
        notes.append(f"default: `{parameter.default}`")
    if getattr(parameter, "envvar", None):
        notes.append(f"environment: `{parameter.envvar}`")
    return text + (f" ({'; '.join(notes)})" if notes else "")


def updated(text: str) -> str:
    """The text with the reference between its markers brought up to date."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("the markers of the command reference are missing")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(updated(file.read_text(encoding="utf-8")), encoding="utf-8")
