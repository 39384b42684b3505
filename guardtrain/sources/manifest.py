"""A table of the user's that lists images and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from guardtrain.errors import DataError
from guardtrain.records import SCHEMA, SPLITS, Records
from guardtrain.sources.images import files_key, is_url, open_image, read_encoded
from guardtrain.sources.record_columns import as_record_columns
from guardtrain.sources.tables import read_table


@dataclass
class ManifestSource:
    """Images listed in a CSV, JSONL or Parquet table.

    Args:
        path: the table; a local path or an fsspec URL.
        image_root: the folder (or URL) relative image paths start from; default: the table's own.
        columns: our column -> the table's, for those named differently, such as `{image: path, label: unsafe}`.
        labels: cell of the label column -> 0 (safe) or 1 (unsafe). Default: safe/unsafe, sfw/nsfw, 0/1, false/true, in
            any case; see `read_labels`. Numbers with names (class labels, categoricals) are read by name.
        where: column -> value or list of values; only rows that match are kept. A value that no row has is an error,
            unless it ends in a question mark; so is a pair that loses one half.
        split: keep only this split (train, val or test); applied after the checks.
        source: value for records whose `source` is empty.

    Without an id column the image path is the id. Columns that are none of ours are kept in the record table.

    Raises (on `records`, `content_key`, `image`):
        DataError: with the file, column, values or images at fault.
    """

    path: str
    image_root: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    source: str | None = None

    def records(self) -> Records:
        """The checked records; read once."""
        return self._records

    def content_key(self) -> str:
        """See `files_key`: paths, sizes and modification times; fails where images are missing."""
        return files_key(self._records, f"the manifest {self.path}")

    def image(self, i: int) -> Image.Image:
        """Image of record `i`, RGB."""
        return open_image(self._uri(i))

    def encoded(self, i: int) -> bytes:
        """The file of record `i`, as it is."""
        return read_encoded(self._uri(i))

    def _uri(self, i: int) -> str:
        uri = self._records.image_uri(i)
        if uri is None:
            raise DataError(f"Record {self._records.ids[i]} of the manifest {self.path} has no image.")
        return uri

    @cached_property
    def _records(self) -> Records:
        origin = f"the manifest {self.path}"
        text = {self.columns.get(name, name) for name in SCHEMA.names}
        table = as_record_columns(
            read_table(self.path, text), columns=self.columns, labels=self.labels, where=self.where, origin=origin
        )
        names = table.column_names
        if "id" not in names:
            if "image" not in names:
                raise DataError(
                    f"{origin} has neither a column 'id' nor 'image' (it has: {', '.join(names)}); say which of its "
                    "columns is which with `columns`, such as columns={image: path, label: unsafe}."
                )
            table = table.append_column("id", table["image"])
        if self.source is not None:
            known = table["source"] if "source" in names else pa.nulls(table.num_rows, pa.string())
            filled = known.cast(pa.string()).fill_null(self.source)
            table = table.drop_columns(["source"]) if "source" in names else table
            table = table.append_column("source", filled)
        records = Records.from_table(table, root=self._root(), origin=origin)
        return records_of_split(self._absolute(records), self.split, origin)

    def _root_text(self) -> str:
        if self.image_root is not None:
            return self.image_root
        return self.path.rpartition("/")[0] if is_url(self.path) else str(Path(self.path).parent)

    def _root(self) -> Path | None:
        root = self._root_text()
        return None if is_url(root) else Path(root).expanduser()

    def _absolute(self, records: Records) -> Records:
        """Relative images under a URL root get their whole URL: a `Path` would fold `s3://` into `s3:/`."""
        root = self._root_text()
        if not is_url(root):
            return records
        images = [
            i if i is None or is_url(i) or i.startswith("/") else f"{root.rstrip('/')}/{i}"
            for i in records.column("image")
        ]
        return records.with_column("image", pa.array(images, pa.string()))


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
