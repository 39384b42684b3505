"""Reading a table of the user's: CSV, JSON, Parquet; path or URL."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterable
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.errors import DataError
from guardtrain.sources.class_names import with_class_names
from guardtrain.sources.json_tables import json_lines, json_table
from guardtrain.sources.text_tables import csv_table, decoded

TEXT_FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
FORMATS = (*TEXT_FORMATS, ".parquet")


def read_table(path: str, text_columns: Iterable[str] = ()) -> pa.Table:
    """The table at `path`; class labels of `datasets` by their names.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`/`.ndjson`, `.json` or `.parquet`; a local path or an fsspec URL. What separates
            the columns of a CSV, and in which of the Unicode encodings text is, is found out; see `csv_table` and
            `json_table`.
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
        text = decoded(content, path)
        if suffix in (".csv", ".tsv"):
            return csv_table(text, "\t" if suffix == ".tsv" else ",", set(text_columns))
        return json_table(text) if suffix == ".json" else json_lines(text)
    except (pa.ArrowException, ValueError, csv.Error) as error:
        raise DataError(f"The table {path} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from error


def without_blank_rows(table: pa.Table) -> pa.Table:
    """`table` without rows in which every cell is empty, such as a spreadsheet writes behind the last one."""
    blank = functools.reduce(pc.and_, (pc.is_null(column) for column in table.columns))
    return table.filter(pc.invert(blank)) if pc.any(blank).as_py() else table
