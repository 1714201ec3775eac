"""A check that a table loses no number in a narrow terminal."""

from __future__ import annotations

import io

from rich.console import Console

from spurious_memorization.reporting.tables.table import Table


def check_every_number_is_printed(table: Table, width: int) -> None:
    """Every number of the table is printed whole, and no line is wider than the terminal."""
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    printed = capture.get()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    for cell in table.text().to_numpy().ravel():
        for word in str(cell).split():
            if word[-1].isdigit():
                assert word in printed, f"cut off at {width}"
