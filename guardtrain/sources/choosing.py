"""Rows chosen by the values of their columns; a value that no row has is an error, not an empty choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.sources.cells import Cells, same, shown, text_of
from guardtrain.words import listed, near

_MAY_BE_MISSING = "?"  # ends a value that no row need have


def rows_matching(table: pa.Table, where: Mapping[str, Any], origin: str, setting: str = "where") -> np.ndarray:
    """(N,) bool: the rows in which each column named in `where` equals its value, or one of its list of values.

    Numbers are compared by value, and with a text that is one; null is an empty cell. A value that ends in a question
    mark is looked for without it, and may be missing.

    Raises:
        DataError: a column or a value that the table does not have, with what is near; `setting` says which setting
            named it.
    """
    keep = np.ones(table.num_rows, dtype=bool)
    for name, wanted in where.items():
        if name not in table.column_names:
            raise DataError(
                f"{setting} names '{name}', which {origin} does not have.{near(name, table.column_names)} "
                f"It has: {listed(table.column_names, 30)}."
            )
        cells = Cells.of(table[name])
        many = isinstance(wanted, Sequence) and not isinstance(wanted, str)
        chosen = chosen_values(
            [text_of(value) for value in (wanted if many else [wanted])],
            cells.texts,
            f"{setting}: '{name}' of {origin}",
            cells.listed(),
            cells.names,
        )
        keep &= np.isin(cells.rows, np.flatnonzero([text in chosen for text in cells.texts]))
    return keep


def chosen_values(
    wanted: Sequence[str | None],
    there: Sequence[str | None],
    problem: str,
    found: str,
    names: Sequence[str] = (),
) -> set[str | None]:
    """Return the values `there` that are `wanted`, in any spelling of a number.

    Args:
        wanted: texts; one that ends in a question mark need not be there.
        there: texts.
        problem: how the message about a missing one begins: what it is that no row has.
        found: what is there, for the message.
        names: of the numbers, where the values are the names of classes.

    Raises:
        DataError: a value that is not there, with what is near.
    """
    spellings: dict[str | None, list[str | None]] = {}
    for text in there:
        spellings.setdefault(None if text is None else same(text), []).append(text)
    chosen: set[str | None] = set()
    for text in wanted:
        key = None if text is None else same(text)
        optional = key is not None and key not in spellings and key.endswith(_MAY_BE_MISSING)
        if optional:
            key = same(str(key)[:-1])
        if key in spellings:
            chosen |= set(spellings[key])
        elif not optional:
            what = shown(text)
            hint = near(str(text), [one for one in there if one is not None]) if what.startswith(("'", '"')) else ""
            if key is not None and key.isdigit() and int(key) < len(names):
                hint = f" Number {key} has the name {names[int(key)]!r}."
            optional_text = "" if text is None else f": {text + _MAY_BE_MISSING!r}"
            raise DataError(
                f"{problem} is {what} in no row.{hint} It holds {found}. A value that may be missing ends in a "
                f"question mark{optional_text}."
            )
    return chosen


def keep_where(table: pa.Table, where: Mapping[str, Any], origin: str, columns: pa.Table | None = None) -> pa.Table:
    """The rows that match `where`; see `rows_matching`.

    Args:
        columns: where to look, row for row, instead of in `table` itself.

    Raises:
        DataError: a column or value the table does not have, or no row that has all of them.
    """
    looked = table if columns is None else columns
    keep = np.ones(table.num_rows, dtype=bool)
    for name, wanted in where.items():
        keep &= rows_matching(looked, {name: wanted}, origin)
        if not keep.any():
            raise DataError(f"where leaves no row of {origin}: '{name}' holds {Cells.of(looked[name]).listed()}.")
    return table.filter(pa.array(keep))
