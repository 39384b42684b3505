"""Words for messages: lists that end somewhere, names that may have been meant, and tables of text."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

_SHOWN = 8  # values listed in an error before "and N more"


def listed(values: Iterable[Any], shown: int = _SHOWN) -> str:
    """Return `a, b, c and 7 more`, for error messages."""
    values = [str(v) for v in values]
    more = len(values) - shown
    return (", ".join(values[:shown]) or "none") + (f" and {more} more" if more > 0 else "")


def near(name: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` where something in `allowed` is close to `name`, else nothing."""
    allowed = list(allowed)
    close = [a for a in allowed if a.lower() == name.lower()] or difflib.get_close_matches(name, allowed, n=3)
    if len(name) > 2:
        close += [a for a in allowed if a not in close and (name.lower() in a.lower() or a.lower() in name.lower())]
    return f" Did you mean {' or '.join(repr(c) for c in close[:3])}?" if close else ""


def text_table(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> list[str]:
    """Return the lines of a table: columns two blanks apart, a rule below the first row, which is the header.

    Args:
        rows: cells, as many in each.
        left: numbers of the columns that are aligned to the left, as words are; the others to the right.

    >>> print("\\n".join(text_table([("n", "which"), ("64", "linear")], left=[1])))
       n  which
      ──────────
      64  linear
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        sized = enumerate(zip(row, widths, strict=True))
        lines.append("  " + "  ".join(cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in sized))
    if len(widths) - 1 in left:
        lines = [line.rstrip() for line in lines]
    return [lines[0], "  " + "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]]
