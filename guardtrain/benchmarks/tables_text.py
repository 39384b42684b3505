"""A benchmark's tables for a terminal: as wide as it, with the intervals that say most."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from guardtrain.benchmarks.measures import METRICS
from guardtrain.curves.tables import Table

# Columns that say little without the others: without their intervals, which the report has.
_BARE = (*(METRICS[name] for name in ("accuracy", "fpr", "fnr")), "flagged", "F1 real", "F1 generated")
_MOST_ROWS = 12  # of a table with a row for each source of each guard
_Lines = list[tuple[str, list[str]]]


def text_of(tables: Sequence[Table], width: int = 110) -> str:
    """Tables as text: a title, rows of values, and what they are below; the whole of them is in the report.

    A table that is too wide goes on below itself. Left out are intervals of columns that say little without the
    others, and where there are many guards the rows below each of them.

    Args:
        tables: of `guardtrain.benchmarks.tables.benchmark_tables`.
        width: characters of a line.
    """
    return "\n\n".join("\n".join(_block(table, width)) for table in tables)


def _block(table: Table, width: int) -> Iterator[str]:
    rows = table.rows
    if hidden := len(rows) > _MOST_ROWS and any(map(str, rows[0][1])) and any(name[:1] == " " for name, _ in rows):
        rows = tuple(row for row in rows if not row[0].startswith(" "))
    lines: _Lines = [
        (name, [cell.main if head in _BARE else str(cell) for head, cell in zip(table.columns, cells, strict=True)])
        for name, cells in rows
    ]
    title, _, rest = table.caption.partition(". ")
    rest = rest.partition("Brackets: ")[0].strip() + (" The rows below each guard are in the report." if hidden else "")
    yield title
    yield from _laid_out(table.columns, lines, width)
    if rest:
        yield textwrap.fill(rest, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _laid_out(columns: Sequence[str], lines: _Lines, width: int) -> Iterator[str]:
    """The lines of a table, its columns in as few parts as fit the width; a part leaves out rows it has nothing of."""
    stub = max(len("guard"), *(len(name) for name, _ in lines))
    widths = [max(len(head), *(len(cells[i]) for _, cells in lines)) for i, head in enumerate(columns)]
    for number, part in enumerate(column_parts(widths, width - stub - 2)):
        if number:
            yield ""
        head = "  ".join(columns[i].ljust(widths[i]) for i in part)
        yield f"  {'guard'.ljust(stub)}  {head}".rstrip()
        yield "  " + "─" * (stub + 2 + len(head))
        for name, cells in lines:
            if number and not any(cells[i] for i in part) and any(cells):
                continue
            yield f"  {name.ljust(stub)}  {'  '.join(cells[i].ljust(widths[i]) for i in part)}".rstrip()


def column_parts(widths: Sequence[int], room: int) -> list[range]:
    """Which columns stand beside each other in a width of `room`, two spaces before each; about as many in each part.

    >>> column_parts([10] * 9, 50)
    [range(0, 3), range(3, 6), range(6, 9)]
    """
    for count in range(1, len(widths) + 1):
        each = -(-len(widths) // count)
        parts = [range(first, min(first + each, len(widths))) for first in range(0, len(widths), each)]
        if each == 1 or all(sum(widths[i] + 2 for i in part) <= room for part in parts):
            return parts
    return []
