"""Plain-text tables for the terminal and for files, rendered by rich."""

from collections.abc import Sequence
from io import StringIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def render_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain-text table; columns whose cells all begin with a digit or a sign are right-aligned."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column, name in enumerate(header):
        cells = [row[column] for row in rows]
        numeric = bool(cells) and all(cell[:1].isdigit() or cell[:1] in "-+" for cell in cells)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(file=StringIO(), width=120, color_system=None, highlight=False, markup=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n")
