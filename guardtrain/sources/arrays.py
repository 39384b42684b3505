"""Embeddings a user has already, in `.npz` or `.npy`: one row an image, or two aligned arrays of pairs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import DataError
from guardtrain.records import CELLS, SAFE, SCHEMA, UNSAFE, Records
from guardtrain.sources.cells import text_of
from guardtrain.sources.choosing import keep_where
from guardtrain.sources.class_names import as_named
from guardtrain.sources.images import is_url
from guardtrain.sources.labels import read_labels
from guardtrain.sources.record_columns import as_record_columns, records_of_split, with_column, with_constants
from guardtrain.sources.tables import read_table
from guardtrain.words import listed, near

# which halves of pairs went through an editor -> `edited` of (safe, unsafe)
EDITED_HALVES = {"safe": (True, False), "unsafe": (False, True), "none": (False, False), "both": (True, True)}
_NAMES = re.compile(r"(class|label|target)(es|s)?([_ .-]?names?)?", re.IGNORECASE)  # of arrays of class names
_ROW = "__row__"  # carries each record's row of the features array through the filters


@dataclass
class ArraysSource:
    """Embeddings in arrays, in one of two forms.

    *Table*: `features` names the `(N, D)` array and `label` the `(N,)` array of labels; the other fields name
    further `(N,)` arrays. *Pairs*: `safe` and `unsafe` name two `(P, D)` arrays whose rows `i` are the two halves
    of pair `i`; the records are safe 0, unsafe 0, safe 1, unsafe 1, …

    Args:
        path: `.npz`, or `.npy` (then the features themselves); a local path or an fsspec URL.
        features: key of the features, `(N, D)` floating. For `.npy` it may be left out.
        safe, unsafe: keys of the two aligned arrays, `(P, D)` floating.
        label: key of the labels, or 0 or 1 where all are the same.
        labels: cell of `label` -> 0 (safe) or 1 (unsafe); the default is that of `ManifestSource`. To say which
            value of a 0/1 column is unsafe: `{0: 0, 1: 1}` or `{0: 1, 1: 0}`. Numbers that an array of the file names
            (`class_names`, `label_names`, `classes`, …) are read by name.
        id, category, source, pair_id, group, split: keys of the columns of these names, `(N,)` or `(P,)`. Ids
            default to the file's name and the row.
        edited: in the table form a key; in the pairs form which halves went through an editor: safe, unsafe, none
            or both.
        metadata: a table (CSV, JSON, Parquet) whose row `i` belongs to row `i` of the features; keys are looked
            up in it first.
        where: key -> value or list of values; only rows that match are kept. A value that no row has is an error,
            unless it ends in a question mark.
        keep_split: keep only this split.
        constants: column -> one value for all records, such as `{source: laion5b}`.
        encoder: what is known of the encoder, such as `{name: mobilenetv2_100, normalized: false}`.

    Nothing pickled is loaded.

    Raises (on `records`, `embeddings`):
        DataError: a missing file or key (with the keys there are), arrays that do not fit, values that are not
            finite, pickled arrays.
    """

    path: str
    features: str | None = None
    safe: str | None = None
    unsafe: str | None = None
    label: str | int | None = None
    labels: dict[str, int] = field(default_factory=dict)
    id: str | None = None
    category: str | None = None
    source: str | None = None
    pair_id: str | None = None
    group: str | None = None
    split: str | None = None
    edited: str | None = None
    metadata: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    keep_split: str | None = None
    constants: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)

    def records(self) -> Records:
        """The checked records; read once."""
        return self._loaded[0]

    def embeddings(self) -> np.ndarray:
        """(N, D) float16 or float32, as in the file (float64 becomes float32); row i belongs to record i."""
        return self._loaded[1]

    def encoder_description(self) -> dict[str, Any]:
        """Return what the user says of the encoder."""
        return dict(self.encoder)

    def content_key(self) -> str:
        """Hex sha256 over path, size and modification time of the file(s), and the settings."""
        parts: list[Any] = [asdict(self)]
        for path in (self.path, self.metadata):
            if path is not None and not is_url(path) and (file := Path(path).expanduser().absolute()).exists():
                stat = file.stat()
                parts.append([str(file), stat.st_size, stat.st_mtime_ns])
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def _origin(self) -> str:
        return f"the arrays {self.path}"

    @cached_property
    def _loaded(self) -> tuple[Records, np.ndarray]:
        pairs = self.safe is not None or self.unsafe is not None
        if pairs and (self.safe is None or self.unsafe is None or self.features is not None):
            raise DataError(
                f"{self._origin}: name either `features` (one row an image), or both `safe` and `unsafe` "
                "(two aligned arrays of pairs)."
            )
        arrays = _Arrays(self.path, self.metadata)
        table, matrix = self._paired(arrays) if pairs else self._tabular(arrays)
        table = with_constants(table, self.constants, self._origin)
        table = as_record_columns(table, columns={}, labels={}, where={}, origin=self._origin)
        records = records_of_split(Records.from_table(table, origin=self._origin), self.keep_split, self._origin)
        chosen = records.column(_ROW)
        return records.without([_ROW]), matrix if len(chosen) == len(matrix) else matrix[chosen]

    def _tabular(self, arrays: _Arrays) -> tuple[pa.Table, np.ndarray]:
        matrix = arrays.matrix(self.features)
        keys = {
            name: key
            for name in SCHEMA.names
            if name not in ("label", "image") and (key := getattr(self, name)) is not None
        }
        columns = {name: arrays.column(key, len(matrix), name) for name, key in keys.items()}
        if isinstance(self.label, int):
            columns["label"] = pa.array(np.full(len(matrix), self.label, dtype=np.int64))
        elif self.label is not None:
            columns["label"] = arrays.labels(self.label, len(matrix))
        elif "label" not in self.constants:
            raise DataError(
                f"{self._origin}: `label` must name the array of labels, or be 0 (all safe) or 1 (all unsafe). "
                f"There are: {arrays.described()}."
            )
        columns.setdefault("id", self._default_ids(len(matrix)))
        table = self._kept(pa.table(columns | {_ROW: np.arange(len(matrix))}), arrays, len(matrix), 1)
        if self.label is not None:
            labels = {} if isinstance(self.label, int) else self.labels
            name = "label" if isinstance(self.label, int) else self.label
            read = read_labels(table["label"], labels, self._origin, name)
            table = with_column(with_column(table, "label", read.labels), CELLS, read.cells)
        return table, matrix

    def _kept(self, table: pa.Table, arrays: _Arrays, rows: int, times: int) -> pa.Table:
        """The records of `table` that `where` keeps; there are `times` as many of them as rows of the arrays."""
        if not self.where:
            return table
        each = pa.array(np.repeat(np.arange(rows), times))
        looked = pa.table({key: arrays.column(key, rows, "where").take(each) for key in self.where})
        return keep_where(table, self.where, self._origin, looked)

    def _paired(self, arrays: _Arrays) -> tuple[pa.Table, np.ndarray]:
        safe, unsafe = arrays.matrix(self.safe), arrays.matrix(self.unsafe)
        if safe.shape != unsafe.shape:
            raise DataError(
                f"{self._origin}: `safe` ({self.safe}, {safe.shape}) and `unsafe` ({self.unsafe}, {unsafe.shape}) "
                "must have the same shape: row i of both is pair i."
            )
        edited = "none" if self.edited is None else self.edited
        if edited not in EDITED_HALVES:
            raise DataError(
                f"{self._origin}: with pairs `edited` is one of {', '.join(EDITED_HALVES)}; it is '{edited}'."
            )
        n = len(safe)
        pair_ids = self._default_ids(n) if self.pair_id is None else arrays.column(self.pair_id, n, "pair_id")
        names = [str(p) for p in pair_ids.to_pylist()]
        columns: dict[str, Any] = {
            "id": [f"{name}/{half}" for name in names for half in ("safe", "unsafe")],
            "label": np.tile(np.array([SAFE, UNSAFE], dtype=np.int8), n),
            CELLS: pa.array([repr(self.safe), repr(self.unsafe)] * n).dictionary_encode(),
            "pair_id": np.repeat(np.array(names, dtype=object), 2),
            "edited": np.tile(np.array(EDITED_HALVES[edited]), n),
        }
        twice = pa.array(np.repeat(np.arange(n), 2))
        for name in ("category", "source", "group", "split"):
            if (key := getattr(self, name)) is not None:
                columns[name] = arrays.column(key, n, name).take(twice)
        table = self._kept(pa.table(columns | {_ROW: np.arange(2 * n)}), arrays, n, 2)
        matrix = np.empty((2 * n, safe.shape[1]), dtype=np.result_type(safe, unsafe))
        matrix[0::2], matrix[1::2] = safe, unsafe
        return table, matrix

    def _default_ids(self, n: int) -> pa.Array:
        stem = PurePosixPath(self.path).stem
        return pa.array([f"{stem}/{i:06d}" for i in range(n)])


class _Arrays:
    """The arrays of one `.npz` or `.npy`, and of the metadata table beside them, by key."""

    def __init__(self, path: str, metadata: str | None) -> None:
        self.origin = f"the arrays {path}"
        self.only, self.files = _load(path, self.origin)
        self.table = None if metadata is None else read_table(metadata, set(SCHEMA.names) - {"label", "edited"})
        self.metadata = metadata

    def described(self) -> str:
        """The keys there are, with shapes."""
        keys = [] if self.only is None else [f"the array itself {self.only.shape}"]
        for name in self.files:
            try:
                array = self.files[name]
                keys.append(f"{name} {array.shape} {array.dtype}")
            except ValueError:
                keys.append(f"{name} (pickled)")
        if self.table is not None:
            keys += [f"{name} (metadata)" for name in self.table.column_names]
        return listed(keys, 30)

    def get(self, key: str, wanted_for: str) -> np.ndarray:
        if key not in self.files:
            known = [*self.files, *(self.table.column_names if self.table is not None else [])]
            raise DataError(
                f"{self.origin} have no key '{key}' (wanted for {wanted_for}).{near(key, known)} "
                f"There are: {self.described()}."
            )
        try:
            return np.asarray(self.files[key])
        except ValueError as error:
            raise _pickled(f"'{key}' of {self.origin}", error) from None

    def matrix(self, key: str | None) -> np.ndarray:
        """The `(N, D)` features under `key`, finite, float16 or float32."""
        if key is None and self.only is None:
            raise DataError(f"{self.origin}: `features` must name the array. There are: {self.described()}.")
        array = self.only if self.only is not None else self.get(str(key), "features")
        if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
            raise DataError(
                f"Features must be (rows, dimensions) of floating type; '{key}' of {self.origin} is "
                f"{array.shape} {array.dtype}."
            )
        if array.dtype not in (np.float16, np.float32):
            array = array.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise DataError(
                f"{len(bad)} rows of '{key}' of {self.origin} hold values that are not finite: rows {listed(bad, 5)}."
            )
        return array

    def labels(self, key: str, rows: int) -> pa.ChunkedArray | pa.Array:
        """The column of labels under `key`; where another array has the names of its numbers, by these."""
        column = self.column(key, rows, "label")
        if not pa.types.is_integer(column.type) or (self.table is not None and key in self.table.column_names):
            return column
        for other in self.files:
            if other != key and _NAMES.fullmatch(other):
                names = self.get(other, "names of labels")
                if names.ndim == 1 and names.dtype.kind in "US" and 2 <= len(names) < rows:
                    return as_named(column, [str(text_of(name)) for name in names.tolist()])
        return column

    def column(self, key: str, rows: int, wanted_for: str) -> pa.Array:
        """The column under `key` of the metadata, else of the file; `rows` long."""
        if self.table is not None and key in self.table.column_names:
            column = self.table[key].combine_chunks()
            column = column if isinstance(column, pa.Array) else pa.nulls(0)
            place = f"the metadata {self.metadata}"
        else:
            array = self.get(key, wanted_for)
            if array.ndim != 1:
                raise DataError(f"'{key}' of {self.origin} (wanted for {wanted_for}) must be 1-d; it is {array.shape}.")
            column, place = pa.array(array.tolist() if array.dtype.kind in "US" else array), self.origin
        if len(column) != rows:
            raise DataError(f"'{key}' of {place} has {len(column)} rows where the features have {rows}.")
        return column


def _pickled(what: str, error: Exception) -> DataError:
    return DataError(
        f"{what} cannot be read without unpickling ({error}). Pickled arrays can run code and are never loaded: "
        "save it as a plain numeric or text array (np.savez with a fixed dtype, not object)."
    )


def _load(path: str, origin: str) -> tuple[np.ndarray | None, Mapping[str, np.ndarray]]:
    """The array of a `.npy` (memory-mapped where local), or the arrays of a `.npz` by key."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise DataError(f"{origin} have the ending '{suffix}'; embeddings are read from .npz and .npy.")
    try:
        if is_url(path):
            import io

            import fsspec

            with fsspec.open(path, "rb") as file:
                loaded = np.load(io.BytesIO(file.read()), allow_pickle=False)
        else:
            loaded = np.load(Path(path).expanduser(), mmap_mode="r" if suffix == ".npy" else None, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"There are no arrays at {path}.") from None
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise _pickled(origin, error) from None
        raise DataError(f"{origin} cannot be read: {error}") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{origin} cannot be read: {error}") from error
    return (loaded, {}) if isinstance(loaded, np.ndarray) else (None, loaded)
