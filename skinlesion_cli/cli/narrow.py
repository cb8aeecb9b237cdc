"""Output for narrow terminals: help without boxes, and tables as lists of their rows."""

from __future__ import annotations

import re
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

from skinlesion_cli.cli.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from skinlesion_cli.result import Table

MARKUP = re.compile(r"\[/?(?:bold|cyan)\]")
_BOXES_NEED = 60
# A longer word (the name of a file, say) may be broken.
_FOLDED_FROM = 24
_FIGURE = re.compile(r"[-+<>]?\d(?!.*[,;] )")


class NarrowHelp:
    """Mixin for commands: below 60 columns, boxes would cut off the names of options in the help."""

    help: str | None
    rich_markup_mode: Any

    def format_help(self, ctx: Any, formatter: Any) -> None:
        columns = shutil.get_terminal_size().columns
        if columns >= _BOXES_NEED:
            super().format_help(ctx, formatter)  # type: ignore[misc]
            return
        formatter.width = columns - 1
        # What an option means begins below its name, not in a column that is a few letters wide.
        formatter.write_dl = partial(formatter.write_dl, col_max=8)
        kept = self.help, self.rich_markup_mode
        self.help, self.rich_markup_mode = MARKUP.sub("", self.help or ""), None
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.help, self.rich_markup_mode = kept


def drawn(table: Table, console: Console) -> RenderableType:
    """The table; if not even its longest words fit side by side, one line per cell."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rows = [[printable(cell) for cell in row] for row in table.rows]
    grid = RichTable(title=printable(table.title), title_justify="left")
    for index, name in enumerate(table.columns):
        figures = index > 0 and all(_is_figure(row[index]) for row in rows)
        grid.add_column(Text(printable(name)), justify="right" if figures else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    # A column needs its longest word, and three characters for its border and the space around it.
    columns = zip(*rows, strict=True) if rows else [()] * len(table.columns)
    needed = 1 + sum(
        3 + max(min(len(word), _FOLDED_FROM) for cell in (name, *cells) for word in (cell.split() or [""]))
        for name, cells in zip(map(printable, table.columns), columns, strict=True)
    )
    if needed <= console.width:
        return grid
    lines = [printable(table.title)]
    for row in rows:
        cells = zip(table.columns[1:], row[1:], strict=True)
        lines += [row[0], *(f"  {printable(name)}: {cell}" for name, cell in cells if cell)]
    return Text("\n".join(lines))


def _is_figure(cell: str) -> bool:
    """A number, with its interval or unit perhaps; not a list that begins with one."""
    return cell in ("", "undefined", "none") or bool(_FIGURE.match(cell))
