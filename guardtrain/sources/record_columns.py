"""From the columns of a user's table to those of the record table: chosen, renamed, with labels and flags read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.records import CELLS, SCHEMA, SPLITS, Records
from guardtrain.sources.cells import plain_column, text_of
from guardtrain.sources.choosing import keep_where
from guardtrain.sources.guessing import PROPOSED, may_be_labels
from guardtrain.sources.labels import LabelsUnclear, read_flags, read_labels, refuse_other_words
from guardtrain.words import listed, near


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
        try:
            read = read_labels(table["label"], labels, origin, name)
        except LabelsUnclear as error:
            raise _with_other_columns(error, original, name, columns) from None
        others = {other: original[other] for other in original.column_names if other != name}
        refuse_other_words(read, name, others, labels, origin)
        table = with_column(with_column(table, "label", read.labels), CELLS, read.cells)
    if "edited" in table.column_names:
        table = with_column(table, "edited", read_flags(table["edited"], columns.get("edited", "edited"), origin))
    for name in table.column_names:
        if name != CELLS and pa.types.is_dictionary(table.schema.field(name).type):
            table = with_column(table, name, plain_column(table[name]))
    for name in set(table.column_names) & (set(SCHEMA.names) - {"label", "edited"}):
        if pa.types.is_nested(table[name].type):
            as_json = pa.array(map(text_of, table[name].to_pylist()), pa.string())
            table = with_column(table, name, as_json)
    return table


def _with_other_columns(error: LabelsUnclear, table: pa.Table, name: str, columns: Mapping[str, str]) -> LabelsUnclear:
    """The error; where no setting would mend it, with the columns that may hold labels in place of `name`."""
    if error.steps or not (others := may_be_labels(table, [name])[:PROPOSED]):
        return error
    settings = [("columns", {**columns, "label": other}) for other in others]
    return LabelsUnclear(error.problem, [("Another column may hold them", settings)])


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


def records_of_split(records: Records, split: str | None, origin: str) -> Records:
    """The records of one split; all of them where `split` is None.

    Raises:
        DataError: no such split, or no record in it.
    """
    if split is None:
        return records
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}; it is '{split}'.")
    rows = np.flatnonzero(records.splits == split)
    if not len(rows):
        found = sorted({str(s) for s in records.splits if s is not None}) or ["none set"]
        raise DataError(f"{origin} has no record with split '{split}' (splits found: {', '.join(found)}).")
    return records.take(rows)


def with_source(table: pa.Table, source: str | None) -> pa.Table:
    """`table` with `source` where a record has none; as it is where that is None."""
    if source is None:
        return table
    known = table["source"].to_pylist() if "source" in table.column_names else [None] * table.num_rows
    filled = [source if value in (None, "") else str(value) for value in known]
    return with_column(table, "source", pa.array(filled, pa.string()))
