"""What two tables say otherwise of the same records: counted, column by column, with examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.sources.stacking import stacked

_SHOWN = 3  # examples of a column that are kept


@dataclass(frozen=True)
class Difference:
    """One column of which two tables say otherwise.

    Args:
        column: its name.
        rows: `(n,)` which rows differ.
        examples: (id, before, now) of the first of them.
    """

    column: str
    rows: np.ndarray
    examples: tuple[tuple[str, Any, Any], ...]

    def text(self, words: tuple[str, str] = ("", "now ")) -> str:
        """In words: "label of 56 rows (such as r1: 0, now 1)".

        Args:
            words: what stands before either value.
        """
        name, before, now = self.examples[0]
        count = f"{len(self.rows):,} row{'s' * (len(self.rows) != 1)}"
        return f"{self.column} of {count} (such as {name}: {words[0]}{shown(before)}, {words[1]}{shown(now)})"


def differences(ids: Sequence[str], before: pa.Table, now: pa.Table, ignored: Collection[str] = ()) -> list[Difference]:
    """Where `before` and `now` differ, a column each; a column that one of them lacks is empty there.

    Values are compared as `stacked` makes them of one type, so that 3 and "3" are the same.

    Args:
        ids: `(N,)` of their rows, which are the same records in the same order.
        before, now: N rows each.
        ignored: columns that are not compared.

    >>> differences(["a", "b"], pa.table({"label": [0, 1]}), pa.table({"label": [0, 0]}))[0].text()
    'label of 1 row (such as b: 1, now 0)'
    """
    found = []
    for name in dict.fromkeys([*now.column_names, *before.column_names]):
        if name in ignored or not len(ids):
            continue
        halves = [_column(table, name) for table in (before, now)]
        if halves[0].equals(halves[1]):
            continue
        both = stacked(halves)[name].to_pylist()
        old, new = both[: len(ids)], both[len(ids) :]
        rows = np.flatnonzero([not _same(a, b) for a, b in zip(old, new, strict=True)])
        if len(rows):
            found.append(Difference(name, rows, tuple((ids[i], old[i], new[i]) for i in rows[:_SHOWN].tolist())))
    return found


def shown(value: Any) -> str:
    """A cell in a message."""
    return "empty" if value is None else repr(value) if isinstance(value, str) else str(value)


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) or (a != a and b != b)


def _column(table: pa.Table, name: str) -> pa.Table:
    return table.select([name]) if name in table.column_names else pa.table({name: pa.nulls(len(table))})
