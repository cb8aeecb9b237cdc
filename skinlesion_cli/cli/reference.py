"""The reference of commands and of the columns of the predictions, as Markdown made from the code.

The site of documents is built with it (`docs/reference_pages.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from skinlesion_cli.cli.choices import with_names
from skinlesion_cli.cli.narrow import MARKUP

_COMMON = ("--workspace", "--json", "--quiet", "--debug", "--help")


def commands() -> str:
    """Every command: what it does, examples, arguments and options."""
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
    parts.append(f"## Options of every command\n\n| option | meaning |\n|---|---|\n{shared}\n")
    return "\n".join(parts)


def columns() -> str:
    """The tables that `predict` writes: one row per image, and with `--group` one per lesion."""
    from skinlesion_cli.inference.lesion_verdict import lesion_table
    from skinlesion_cli.inference.prediction import table_of
    from skinlesion_cli.taxonomy.shipped import shipped

    classes = shipped("isic2018")

    lesions = _column_table(lesion_table(classes).columns)
    return f"{_column_table(table_of(classes).columns)}\n## One row per lesion (`--group`)\n\n{lesions}"


def _column_table(columns: Iterable[Any]) -> str:
    rows = "\n".join(f"| `{c.name}` | {c.kind} | {c.meaning.replace('|', chr(92) + '|')} |" for c in columns)
    return f"| column | type | meaning |\n|---|---|---|\n{rows}\n"


def _command(name: str, command: Any) -> str:
    about, _, examples = command.help.partition("[bold]Examples[/bold]")
    lines = [MARKUP.sub("", line).strip() for line in examples.splitlines()]
    shown = "\n".join(line for line in lines if line)
    own = [p for p in command.params if not _is_common(p)]
    rows = "\n".join(f"| {_names(p)} | {_describe(p)} |" for p in own)
    table = f"\n| option | meaning |\n|---|---|\n{rows}\n" if rows else ""
    return f"## `skinlesion {name}`\n\n{about.strip()}\n\n```sh\n{shown}\n```\n{table}"


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
