"""Rows of Parquet files whose images are read as needed: a few pages of them are in memory, however many there are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from guardtrain.errors import DataError
from guardtrain.file_names import open_on_disk
from guardtrain.sources.class_names import with_class_names
from guardtrain.sources.guessing import may_be_images, without_image_column
from guardtrain.sources.images import is_url
from guardtrain.sources.paths import file_key
from guardtrain.sources.rows import located
from guardtrain.sources.stacking import stacked
from guardtrain.words import listed

_WINDOW_BYTES = 1 << 23  # of images decoded from a row group at a time
_WINDOWS = 4  # kept of each open row group, for threads that are a little behind
_OPEN = 2  # row groups of an image column read from at once


class ParquetRows:
    """Rows of one or more Parquet files.

    An image column is a struct of `bytes` and `path` (what Hugging Face's `datasets` writes), binary, or text (paths
    from the file's folder, or URLs), in each file. The types of the other columns may differ from file to file (see
    `stacked`). Class labels of `datasets` become their names, by what each file says of its own.

    Args:
        files: local paths or fsspec URLs.
        image: an image column besides those of the first two kinds; default: `image` where there are none.
        origin: what messages call them.

    Raises:
        DataError: a file that cannot be read, files of differing columns, no such image column.
    """

    hint = ""

    def __init__(self, files: list[str], image: str | None, origin: str) -> None:
        self._files, self._origin = files, origin
        self.key = "\n".join(file_key(file, "Parquet files") for file in files)
        schemas, self._starts = self._footers()
        found = [name for name in schemas[0].names if all(holds_images(schema, name) for schema in schemas)]
        image = image or ("image" if "image" in found or not found else found[0])
        if image not in schemas[0].names:
            with open_parquet(files[0]) as parquet:
                first = next(parquet.iter_batches(50), None)
            may_be = found or (may_be_images(pa.Table.from_batches([first])) if first is not None else [])
            raise without_image_column(image, schemas[0].names, may_be, origin)
        self.image_columns = (image, *(name for name in found if name != image))
        self.table = stacked([self._other_columns(file, schema) for file, schema in zip(files, schemas, strict=True)])
        self.ids = [f"{stem}/{i:06d}" for stem, n in zip(stems(files), self.lengths, strict=True) for i in range(n)]
        self._groups = _OpenGroups(files)

    def cell(self, row: int, column: str) -> bytes | str | None:
        """See `ImageRows`."""
        which = int(np.searchsorted(self._starts, row, side="right")) - 1
        file, group = self._places[which]
        value = self._groups.value(file, group, row - int(self._starts[which]), column)
        if isinstance(value, dict):
            content, path = value.get("bytes"), value.get("path")
            value = content if content is not None else path
        return value if isinstance(value, bytes) else located(value, self._root(file))

    def uri(self, row: int, column: str) -> str | None:
        """See `ImageRows`; None: an image inside a Parquet file has no address."""
        return None

    def _root(self, file: int) -> str:
        return self._files[file].rpartition("/")[0]

    def _footers(self) -> tuple[list[pa.Schema], np.ndarray]:
        """The schema of every file, and the first row of every row group."""
        self._places: list[tuple[int, int]] = []
        self.lengths: list[int] = []
        lengths: list[int] = []
        schemas: list[pa.Schema] = []
        for number, file in enumerate(self._files):
            try:
                with open_parquet(file) as parquet:
                    metadata, schema = parquet.metadata, parquet.schema_arrow
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
            schemas.append(schema)
            # not filled up: what `where` or `columns` name, and a file lacks, would drop its rows or empty their cells
            if differing := sorted(set(schema.names) ^ set(schemas[0].names)):
                raise DataError(f"{file} has other columns than {self._files[0]}: {listed(differing)}.")
            self.lengths.append(metadata.num_rows)
            for group in range(metadata.num_row_groups):
                self._places.append((number, group))
                lengths.append(metadata.row_group(group).num_rows)
        return schemas, np.concatenate([[0], np.cumsum(lengths)[:-1]]) if lengths else np.zeros(1, np.int64)

    def _other_columns(self, file: str, schema: pa.Schema) -> pa.Table:
        """All of a file but the images (of any column), and of its image structs the paths."""
        leaves = [name for name in schema.names if name not in self.image_columns and not holds_images(schema, name)]
        kinds = {name: schema.field(name).type for name in self.image_columns}
        named = [name for name, kind in kinds.items() if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0]
        text = [name for name, kind in kinds.items() if not holds_bytes(kind)]
        with open_parquet(file) as parquet:
            table = parquet.read(columns=leaves + [f"{name}.path" for name in named] + text)
        columns: dict[str, Any] = {name: table[name] for name in leaves}
        columns |= {f"{name}.path": pc.struct_field(table[name], "path") for name in named}
        columns |= {column: table[name] for name in text for column in (name, f"{name}.path")}
        found = pa.table(columns) if columns else pa.table({"__none__": pa.nulls(table.num_rows)})
        return with_class_names(found, schema)


def open_parquet(file: str) -> pq.ParquetFile:
    """The Parquet file at a local path or fsspec URL; nothing of it is read ahead."""
    if not is_url(file):
        # Arrow takes a name as UTF-8, whatever the file's is
        named = file if file.isascii() and "\\x" not in file else open_on_disk(file)
        return pq.ParquetFile(named, pre_buffer=False, buffer_size=1 << 20)
    import fsspec

    return pq.ParquetFile(fsspec.open(file, "rb").open(), pre_buffer=False, buffer_size=1 << 20)


def holding_images(path: str) -> list[str]:
    """The columns of the Parquet file at `path` that hold images as `datasets` keeps them; none of what is no such
    file, or cannot be read."""
    if not path.lower().endswith(".parquet"):
        return []
    try:
        with open_parquet(path) as parquet:
            schema = parquet.schema_arrow
    except Exception:  # of file systems and Arrow; whoever reads it says so
        return []
    return [name for name in schema.names if pa.types.is_struct(schema.field(name).type) and holds_images(schema, name)]


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds images themselves: a struct with `bytes`, or binary."""
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def holds_images(schema: pa.Schema, name: str) -> bool:
    """Whether there is a column of this name, and it holds images themselves."""
    return name in schema.names and holds_bytes(schema.field(name).type)


def stems(files: list[str]) -> list[str]:
    """A short name for each file: its stem, or its path under the common folder where stems repeat."""
    names = [PurePosixPath(file).stem for file in files]
    if len(set(names)) == len(names):
        return names
    parts = [file.rsplit(".", 1)[0].split("/") for file in files]
    shared = 0
    while len({tuple(p[: shared + 1]) for p in parts}) == 1 and shared < min(map(len, parts)) - 1:
        shared += 1
    return ["/".join(p[shared:]) for p in parts]


class _Group:
    """One column of one row group, decoded forward window by window."""

    def __init__(self, file: str, group: int, column: str) -> None:
        self._parquet = open_parquet(file)
        metadata = self._parquet.metadata.row_group(group)
        sizes = [metadata.column(i) for i in range(metadata.num_columns)]
        size = sum(c.total_uncompressed_size for c in sizes if c.path_in_schema.split(".")[0] == column)
        self._rows = max(1, min(metadata.num_rows, int(_WINDOW_BYTES * metadata.num_rows / max(size, 1))))
        self._group, self._column = group, column
        self._windows: OrderedDict[int, pa.Array] = OrderedDict()
        self._restart()

    def _restart(self) -> None:
        batches: Iterator[pa.RecordBatch] = self._parquet.iter_batches(
            batch_size=self._rows, row_groups=[self._group], columns=[self._column], use_threads=False
        )
        self._batches, self._next = batches, 0

    def value(self, row: int) -> Any:
        for start, window in self._windows.items():
            if start <= row < start + len(window):
                return window[row - start].as_py()
        if row < self._next:
            self._restart()
        while True:
            batch = next(self._batches)
            start, self._next = self._next, self._next + len(batch)
            self._windows.pop(start, None)
            self._windows[start] = batch.column(0)
            if len(self._windows) > _WINDOWS:
                self._windows.popitem(last=False)
            if row < self._next:
                return batch.column(0)[row - start].as_py()

    def close(self) -> None:
        self._parquet.close()


class _OpenGroups:
    """The row groups read from last, shared by threads."""

    def __init__(self, files: list[str]) -> None:
        self._files = files
        self._open: OrderedDict[tuple[int, int, str], _Group] = OrderedDict()
        self._lock = threading.Lock()

    def value(self, file: int, group: int, row: int, column: str) -> Any:
        with self._lock:
            key = (file, group, column)
            if key not in self._open:
                of_column = [other for other in self._open if other[2] == column]
                if len(of_column) >= _OPEN:
                    self._open.pop(of_column[0]).close()
                self._open[key] = _Group(self._files[file], group, column)
            self._open.move_to_end(key)
            try:
                return self._open[key].value(row)
            except (pa.ArrowException, StopIteration) as error:
                raise OSError(f"{self._files[file]}, row group {group}: {error}") from error
