"""From the columns of a user's table to those of the record table: chosen, renamed, with labels and flags read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.records import CELLS, SCHEMA
from guardtrain.sources.cells import plain_column
from guardtrain.sources.choosing import keep_where
from guardtrain.sources.labels import read_flags, read_labels, refuse_other_words
from guardtrain.sources.tables import listed, near


def as_record_columns(
    table: pa.Table,
    *,
    columns: Mapping[str, str],
    labels: Mapping[Any, int],
    where: Mapping[str, Any],
    origin: str,
) -> pa.Table:
    """`table` filtered, renamed, with labels and flags read: ready for `Records.from_table` but for the id.

    `where` names columns as the user's table has them, or by our names where those are mapped. What stood in the label
    column goes along in the column `CELLS`; a table that has that column already has its labels read.
    """
    if where:
        theirs = {columns.get(name, name) if name not in table.column_names else name: v for name, v in where.items()}
        table = keep_where(table, theirs, origin)
    original = table
    table = rename_columns(table, columns, origin)
    if "label" in table.column_names and CELLS not in table.column_names:
        name = columns.get("label", "label")
        read = read_labels(table["label"], labels, origin, name)
        others = {other: original[other] for other in original.column_names if other != name}
        refuse_other_words(read, name, others, labels, origin)
        table = with_column(with_column(table, "label", read.labels), CELLS, read.cells)
    if "edited" in table.column_names:
        table = with_column(table, "edited", read_flags(table["edited"], columns.get("edited", "edited"), origin))
    for name in table.column_names:
        if name != CELLS and pa.types.is_dictionary(table.schema.field(name).type):
            table = with_column(table, name, plain_column(table[name]))
    return table


def with_constants(table: pa.Table, constants: Mapping[str, Any], origin: str) -> pa.Table:
    """`table` with each constant in all rows; a label is read as any other cell of a label column.

    Raises:
        DataError: a constant that is no column of the record table, or a label that is none.
    """
    for name, value in constants.items():
        if name not in SCHEMA.names:
            raise DataError(
                f"constants names '{name}', no column of the record table ({', '.join(SCHEMA.names)})."
                f"{near(name, SCHEMA.names)}"
            )
        column = pa.array([value] * table.num_rows)
        if name == "label":
            read = read_labels(column, {}, f"{origin} (constants.label)")
            table, column = with_column(table, CELLS, read.cells), read.labels
        table = with_column(table, name, column)
    return table


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """`table` with column `name` replaced, or added."""
    index = table.schema.get_field_index(name)
    return table.append_column(name, values) if index < 0 else table.set_column(index, name, values)


def rename_columns(table: pa.Table, columns: Mapping[str, str], origin: str) -> pa.Table:
    """`table` with the user's columns under our names.

    Args:
        columns: our column name -> the user's. What it does not name keeps its name; a column of the user's that
            has one of our names but is not what was mapped to it is dropped.

    Raises:
        DataError: an unknown record column, or a column the table does not have; both with the near matches.
    """
    for ours, theirs in columns.items():
        if ours not in SCHEMA.names:
            raise DataError(
                f"columns names '{ours}', which is no column of the record table "
                f"({', '.join(SCHEMA.names)}).{near(ours, SCHEMA.names)}"
            )
        if theirs not in table.column_names:
            raise DataError(
                f"{origin} has no column '{theirs}' (wanted for {ours}).{near(theirs, table.column_names)} "
                f"It has: {listed(table.column_names, 30)}."
            )
    mapped = set(columns.values())
    kept = {name: table[name] for name in table.column_names if name not in mapped and name not in columns}
    return pa.table({ours: table[theirs] for ours, theirs in columns.items()} | kept)
