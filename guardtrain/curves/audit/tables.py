"""Text tables of an audit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from guardtrain.curves.statistics import number_text

WIDTH = 100


def table(title: str, rows: Sequence[Sequence[str]], left: int = 1, words: bool = False) -> str:
    """Columns as wide as they need; the first `left` flush left. A short row's last cell may run over.

    Args:
        title: the line above; "" for none.
        rows: the first is the head.
        left: columns flush left.
        words: the last column is flush left, too, and what is too long of it is cut off.
    """
    columns = len(rows[0])
    widths = [max((len(row[i]) for row in rows if len(row) == columns), default=0) for i in range(columns)]
    for i in range(min(left, columns)):  # a cell that runs over does not widen its column
        widths[i] = max(len(row[i]) for row in rows if len(row) > i and (len(row) == columns or i < len(row) - 1))
    lines = []
    for row in rows:
        cells = []
        for i, text in enumerate(row):
            flush_left = i < left or (words and i == columns - 1)
            cells.append(text.ljust(widths[i]) if flush_left else text.rjust(widths[i]))
        line = ("  " + "   ".join(cells)).rstrip()
        lines.append(clipped(line) if words else line)
    rule = "  " + "─" * (max(map(len, lines)) - 2)
    return "\n".join([*([title] if title else []), lines[0], rule, *lines[1:]])


def clipped(line: str, width: int = WIDTH) -> str:
    """A line that is no wider than the page, or than `width` characters."""
    return line if len(line) <= width else f"{line[: width - 1]}…"


def wrapped(text: str) -> str:
    """A note under a table."""
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def interval_text(low: float, high: float) -> str:
    """Two ends in brackets."""
    return f"[{number_text(low)}, {number_text(high)}]"


def share_text(part: float, whole: float) -> str:
    """A share in percent, a dash where there is no whole."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


def p_text(value: float) -> str:
    """A p-value, never as 0."""
    return "< .001" if value < 0.0005 else number_text(value)


def named(part: str) -> str:
    """A part's name in the first column."""
    return f"test '{part.removeprefix('test ')}'" if part.startswith("test ") else part
