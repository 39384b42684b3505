"""Reading a table of the user's: CSV, JSONL, Parquet; path or URL."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.sources.class_names import with_class_names

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SHOWN = 8  # values listed in an error before "and N more"


def listed(values: Iterable[Any], shown: int = _SHOWN) -> str:
    """`a, b, c and 7 more`, for error messages."""
    values = [str(v) for v in values]
    more = len(values) - shown
    return (", ".join(values[:shown]) or "none") + (f" and {more} more" if more > 0 else "")


def near(name: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` where something in `allowed` is close to `name`, else nothing."""
    allowed = list(allowed)
    close = [a for a in allowed if a.lower() == name.lower()] or difflib.get_close_matches(name, allowed, n=3)
    if len(name) > 2:
        close += [a for a in allowed if a not in close and (name.lower() in a.lower() or a.lower() in name.lower())]
    return f" Did you mean {' or '.join(repr(c) for c in close[:3])}?" if close else ""


def read_table(path: str, text_columns: Iterable[str] = ()) -> pa.Table:
    """The table at `path`; class labels of `datasets` by their names.

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

            return with_class_names(pq.read_table(io.BytesIO(content)))
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
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # mixed types, such as ids 1 and "a"; huge numbers
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values])
