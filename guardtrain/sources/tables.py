"""Reading a table of the user's (CSV, JSONL, Parquet; path or URL) and renaming it to the record columns."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.errors import DataError
from guardtrain.records import SAFE, SCHEMA, UNSAFE

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
DEFAULT_LABELS = {"safe": SAFE, "0": SAFE, "false": SAFE, "unsafe": UNSAFE, "1": UNSAFE, "true": UNSAFE}
_BOOLEANS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_SHOWN = 8  # values listed in an error before "and N more"


def listed(values: Iterable[Any], shown: int = _SHOWN) -> str:
    """`a, b, c and 7 more`, for error messages."""
    values = [str(v) for v in values]
    more = len(values) - shown
    return (", ".join(values[:shown]) or "none") + (f" and {more} more" if more > 0 else "")


def near(name: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` where something in `allowed` is close to `name`, else nothing."""
    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=3, cutoff=0.6)
    close += [a for a in allowed if a not in close and (name.lower() in a.lower() or a.lower() in name.lower())]
    return f" Did you mean {' or '.join(repr(c) for c in close[:3])}?" if close else ""


def read_table(path: str, text_columns: Iterable[str] = ()) -> pa.Table:
    """The table at `path`.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`/`.ndjson` or `.parquet`; a local path or an fsspec URL.
        text_columns: CSV columns that stay text, so that the id `0001` does not become the number 1. Empty CSV
            fields are nulls; `NA` is a value like any other.

    Raises:
        DataError: no such file, another format, or a file that cannot be parsed.
    """
    import fsspec

    suffix = PurePosixPath(path.split("?")[0]).suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"The table {path} has the ending '{suffix}'; a table is one of {', '.join(FORMATS)}.")
    try:
        with fsspec.open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"There is no table at {path}.") from None
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"The table {path} cannot be opened: {error}") from error
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(io.BytesIO(content))
        if suffix in (".csv", ".tsv"):
            return _read_csv(content, "\t" if suffix == ".tsv" else ",", set(text_columns))
        return _read_jsonl(content)
    except (pa.ArrowException, ValueError, csv.Error) as error:
        raise DataError(f"The table {path} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from error


def _read_csv(content: bytes, delimiter: str, text_columns: set[str]) -> pa.Table:
    from pyarrow import csv as pa_csv

    if not content.strip():
        raise ValueError("it is empty")
    content = content.removeprefix(b"\xef\xbb\xbf")  # the byte-order mark that spreadsheets write
    header = next(csv.reader(io.StringIO(content.decode("utf-8")), delimiter=delimiter))
    if duplicates := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(f"the header repeats {', '.join(duplicates)}")
    return pa_csv.read_csv(
        io.BytesIO(content),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in header if name in text_columns},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _read_jsonl(content: bytes) -> pa.Table:
    # The standard library rather than pyarrow.json, which turns ids that look like dates into timestamps.
    rows = []
    for number, line in enumerate(content.decode("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise ValueError("it is empty")
    return pa.table({name: values_column([row.get(name) for row in rows]) for name in names})


def values_column(values: list[Any]) -> pa.Array:
    """Values as read from JSON as a column; those of mixed types as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # mixed types, such as ids 1 and "a"
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values])


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


def text_of(value: Any) -> str | None:
    """How a cell is written in a mapping or a filter: 1, 1.0 and True are `1`, `1` and `true`; null is None."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _cell_texts(column: pa.ChunkedArray | pa.Array) -> tuple[list[str | None], np.ndarray]:
    """The distinct cell texts of a column, and for each row the index of its text in them."""
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(encoded, pa.ChunkedArray):  # no rows
        return [], np.zeros(0, dtype=np.int64)
    texts = [text_of(v) for v in encoded.dictionary.to_pylist()]
    return texts, np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int64)


def read_labels(column: pa.ChunkedArray | pa.Array, labels: Mapping[str, int], origin: str) -> pa.Array:
    """A label column as int8, 1 unsafe.

    Args:
        labels: cell -> 0 or 1, instead of the default safe/unsafe, 0/1, true/false (any case).

    Raises:
        DataError: a cell that the mapping does not have, with all values found; a mapping to anything but 0 and 1.
    """
    if bad := {k: v for k, v in labels.items() if v not in (SAFE, UNSAFE)}:
        raise DataError(f"labels maps to 0 (safe) or 1 (unsafe); it has {bad}.")
    mapping = {str(k): int(v) for k, v in labels.items()} or DEFAULT_LABELS
    folded = {k.lower(): v for k, v in mapping.items()}
    texts, rows = _cell_texts(column)
    codes = [None if t is None else mapping.get(t, folded.get(t.strip().lower())) for t in texts]
    if None in codes:
        counts = np.bincount(rows, minlength=len(texts))
        found = [f"{'(empty)' if t is None else repr(t)} ({n})" for t, n in zip(texts, counts, strict=True)]
        allowed = ", ".join(f"{k}={v}" for k, v in mapping.items())
        raise DataError(
            f"The label column of {origin} holds values that are not mapped to safe or unsafe. Found: "
            f"{listed(found, 20)}. Mapped: {allowed}. Set `labels` to say which are safe (0) and which unsafe (1), "
            "or leave rows out with `where`."
        )
    return pa.array(np.asarray(codes, dtype=np.int8)[rows] if codes else np.zeros(0, np.int8))


def read_flags(column: pa.ChunkedArray | pa.Array, name: str, origin: str) -> pa.Array:
    """A yes/no column (bool, 0/1, true/false, yes/no in any case) as bool; null is False."""
    texts, rows = _cell_texts(column)
    flags = [False if t is None else _BOOLEANS.get(t.strip().lower()) for t in texts]
    if None in flags:
        odd = [repr(t) for t, flag in zip(texts, flags, strict=True) if flag is None]
        raise DataError(f"Column '{name}' of {origin} must be true or false; it also holds {listed(odd)}.")
    return pa.array(np.asarray(flags, dtype=bool)[rows] if flags else np.zeros(0, bool))


def rows_matching(table: pa.Table, where: Mapping[str, Any], origin: str, setting: str = "where") -> np.ndarray:
    """(N,) bool: the rows in which each column named in `where` equals its value, or one of its list of values.

    Raises:
        DataError: a column the table does not have; `setting` says which setting named it.
    """
    keep = np.ones(table.num_rows, dtype=bool)
    for name, wanted in where.items():
        if name not in table.column_names:
            raise DataError(
                f"{setting} names '{name}', which {origin} does not have.{near(name, table.column_names)} "
                f"It has: {listed(table.column_names, 30)}."
            )
        many = isinstance(wanted, Sequence) and not isinstance(wanted, str)
        values = {text_of(v) for v in wanted} if many else {text_of(wanted)}
        texts, rows = _cell_texts(table[name])
        keep &= np.asarray([t in values for t in texts] or [False], dtype=bool)[rows]
    return keep


def keep_where(table: pa.Table, where: Mapping[str, Any], origin: str) -> pa.Table:
    """The rows that match `where`; see `rows_matching`.

    Raises:
        DataError: a column the table does not have, or no row left, with the values found.
    """
    keep = np.ones(table.num_rows, dtype=bool)
    for name, wanted in where.items():
        keep &= rows_matching(table, {name: wanted}, origin)
        if not keep.any():
            texts, _ = _cell_texts(table[name])
            raise DataError(f"where leaves no row of {origin}: '{name}' holds {listed(map(repr, texts))}.")
    return table.filter(pa.array(keep))


def as_record_columns(
    table: pa.Table,
    *,
    columns: Mapping[str, str],
    labels: Mapping[str, int],
    where: Mapping[str, Any],
    origin: str,
) -> pa.Table:
    """`table` filtered, renamed, with labels and flags read: ready for `Records.from_table` but for the id.

    `where` names columns as the user's table has them, or by our names where those are mapped.
    """
    if where:
        theirs = {columns.get(name, name) if name not in table.column_names else name: v for name, v in where.items()}
        table = keep_where(table, theirs, origin)
    table = rename_columns(table, columns, origin)
    if "label" in table.column_names:
        label = read_labels(table["label"], labels, origin)
        table = table.set_column(table.schema.get_field_index("label"), "label", label)
    if "edited" in table.column_names:
        edited = read_flags(table["edited"], "edited", origin)
        table = table.set_column(table.schema.get_field_index("edited"), "edited", edited)
    return table
