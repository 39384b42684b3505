"""The Parquet files that img2dataset writes beside its tars, joined to the tars' samples."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.file_names import path_on_disk, path_text
from guardtrain.sources.class_names import with_class_names
from guardtrain.sources.images import is_url
from guardtrain.sources.parquet_rows import open_parquet
from guardtrain.sources.stacking import stacked
from guardtrain.words import listed


def with_sidecars(table: pa.Table, keys: list[str], tar_of: np.ndarray, tars: list[str]) -> pa.Table:
    """`table` with those columns it lacks of the Parquet files beside the tars, matched by `key`.

    Raises:
        DataError: a file that cannot be read.
    """
    parts, found = [], False
    for t, file in enumerate(_sidecars(tars)):
        mine = np.flatnonzero(tar_of == t)
        part = pa.table({"__key__": [keys[i].rsplit("/", 1)[-1] for i in mine]})
        if file is not None:
            try:
                with open_parquet(file) as parquet:
                    names = parquet.schema_arrow.names
                    wanted = [name for name in names if name not in table.column_names and name != "key"]
                    beside = parquet.read(columns=["key", *wanted]) if "key" in names and wanted else None
                    beside = beside and with_class_names(beside, parquet.schema_arrow)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file}, beside its tar, cannot be read: {str(error).splitlines()[0]}") from error
            if beside is not None:
                rows = _rows_of(part["__key__"].to_pylist(), beside["key"].to_pylist(), file, tars[t])
                at = pa.array(rows, pa.int64())
                for name in wanted:
                    part = part.append_column(name, beside[name].take(at))
                found = True
        parts.append(part)
    if not found:
        return table
    joined = stacked(parts).drop_columns(["__key__"])
    for name in joined.column_names:
        table = table.append_column(name, joined[name])
    return table


def _rows_of(samples: list[str], keys: list[Any], file: str, tar: str) -> list[int | None]:
    """The row of each sample in the file beside its tar: by its text, or by its number where keys are numbers there."""
    by_text = {str(key): i for i, key in enumerate(keys)}
    found = [by_text.get(sample) for sample in samples]
    if any(row is not None for row in found) or not samples:
        return found
    numbers = [int(sample) for sample in samples if sample.isdecimal()]
    if all(isinstance(key, int) for key in keys) and len(set(numbers)) == len(samples):
        found = [by_text.get(str(number)) for number in numbers]
    if all(row is None for row in found):
        print(
            f"{file}: none of its keys, such as {listed(keys, 2)}, is that of a sample of {tar}, such as "
            f"{listed(samples, 2)}; its columns are empty. The column 'key' must hold the members' names without their "
            "endings, as text.",
            file=sys.stderr,
            flush=True,
        )
    return found


def _sidecars(tars: list[str]) -> list[str | None]:
    """The Parquet file beside each tar, where there is one; folders are listed once."""
    listings: dict[str, set[str]] = {}
    found: list[str | None] = []
    for tar in tars:
        folder, _, name = tar.rpartition("/")
        if folder not in listings:
            listings[folder] = _listing(folder)
        beside = f"{name.split('.tar')[0].removesuffix('.tgz')}.parquet"
        found.append(f"{folder}/{beside}" if beside in listings[folder] else None)
    return found


def _listing(folder: str) -> set[str]:
    if not is_url(folder):
        return {path_text(entry.name) for entry in Path(path_on_disk(folder)).iterdir()}
    import fsspec

    try:
        system, inner = fsspec.core.url_to_fs(folder)
        return {PurePosixPath(name).name for name in system.ls(inner, detail=False)}
    except Exception:  # plain https has no listing, and each file system its own error for it
        return set()
