"""Tables of the user's one after another, though their columns, or the types of these, differ."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.sources.cells import text_of


def stacked(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all tables; a column that some lack is null there.

    Of types that differ the wider one holds (integers among fractions are fractions); where none holds both, the column
    becomes text, as `text_of` writes it, and lists and objects as JSON. So a column that is empty in one table, which
    tools write as whatever type they like, is what it is in the others.

    Args:
        tables: one or more; the first one's metadata stays.

    Raises:
        DataError: a column that has names for its numbers (class labels) in some tables, and in others numbers alone.

    >>> stacked([pa.table({"a": pa.array([None], pa.float64())}), pa.table({"a": ["x"]})])["a"].to_pylist()
    [None, 'x']
    """
    _refuse_half_named(tables)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        pass  # one column or more that only text can hold
    columns = {name: _column(tables, name) for name in dict.fromkeys(n for table in tables for n in table.column_names)}
    return pa.table(columns).replace_schema_metadata(tables[0].schema.metadata)


def as_text(schemas: Sequence[pa.Schema]) -> dict[str, list[str]]:
    """Columns that `stacked` makes text of as no type holds those of all `schemas`: name -> the types, in their order.

    Integers that only text can hold beside fractions or other integers, for their size, are seen by `stacked` alone.
    """
    found = {}
    for name in dict.fromkeys(name for schema in schemas for name in schema.names):
        fields = [schema.field(name) for schema in schemas if name in schema.names]
        try:
            pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive")
        except pa.ArrowException:
            found[name] = list(dict.fromkeys(str(field.type) for field in fields))
    return found


def _column(tables: Sequence[pa.Table], name: str) -> pa.ChunkedArray:
    parts = [
        table.select([name]) if name in table.column_names else pa.table({name: pa.nulls(len(table))})
        for table in tables
    ]
    try:
        return pa.concat_tables(parts, promote_options="permissive")[name]
    except pa.ArrowException:
        return pa.chunked_array([pa.array(map(text_of, part[name].to_pylist()), pa.string()) for part in parts])


def _refuse_half_named(tables: Sequence[pa.Table]) -> None:
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    for name, types in kinds.items():
        numbers = any(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
        if numbers and any(pa.types.is_dictionary(kind) for kind in types):
            raise DataError(
                f"Column '{name}' has names for its numbers in some of the files, and in others numbers alone, whose "
                "names are not known: write those files again with the names, or leave them out."
            )
