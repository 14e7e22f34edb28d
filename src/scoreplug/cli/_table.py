"""Tables: drawn for a terminal, plain and aligned columns for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from scoreplug.foreign import one_line


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header; columns that are empty throughout are left out."""
    shown = [i for i in range(len(header)) if any(row[i] for row in rows)]
    header = [header[i] for i in shown]
    rows = [[one_line(row[i]) for i in shown] for row in rows]
    if sys.stdout.isatty():
        _draw(header, rows)
    else:
        table = [[title.upper() for title in header], *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(header))]
        for row in table:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # slow to import, and of no use in a pipe
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(table)
