"""A table of the user's that lists images and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from guardtrain.records import SCHEMA, Records
from guardtrain.sources.derived import Derived, check_names, with_derived
from guardtrain.sources.guessing import without_images, without_labels
from guardtrain.sources.images import MissingImages, files_key, is_url
from guardtrain.sources.listed import ListedImages
from guardtrain.sources.missing_images import found_elsewhere
from guardtrain.sources.parquet_rows import holding_images
from guardtrain.sources.paths import refuse_saved_folder
from guardtrain.sources.record_columns import (
    as_record_columns,
    records_of_split,
    with_column,
    with_constants,
    with_source,
)
from guardtrain.sources.rows import as_on_disk
from guardtrain.sources.tables import read_table, without_blank_rows
from guardtrain.sources.unclear import Unclear


@dataclass
class ManifestSource(ListedImages):
    """Images listed in a table: CSV (of a spreadsheet, too), JSON lines, JSON or Parquet.

    Args:
        path: the table; a local path or an fsspec URL. Of JSON: an array of objects, the export of Label Studio, COCO's
            annotations; see `json_table` for their columns.
        image_root: the folder (or URL) relative image paths start from; default: the table's own.
        columns: our column -> the table's, for those named differently, such as `{image: path, label: unsafe}`.
        labels: cell of the label column -> 0 (safe) or 1 (unsafe). Default: safe/unsafe, sfw/nsfw, 0/1, false/true, in
            any case, and LlavaGuard's ratings; see `read_labels`. Numbers with names (class labels, categoricals) are
            read by name.
        where: column -> value or list of values; only rows that match are kept. A value that no row has is an error,
            unless it ends in a question mark; so is a pair that loses one half.
        derive: our column -> how it is made from another.
        constants: our column -> one value for all records, such as `{label: 0}`.
        split: keep only this split (train, val or test); applied after the checks.
        source: value for records whose `source` is empty.

    Without an id column the image path is the id. Columns that are none of ours are kept in the record table. A path
    that is there without the blanks around it, or with slashes for backslashes, is that file's.

    Raises (on `records`, `content_key`, `image`):
        DataError: with the file, column, values or images at fault.
    """

    path: str
    image_root: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    derive: dict[str, Derived] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        check_names("derive", self.derive)
        check_names("constants", self.constants)

    def records(self) -> Records:
        """The checked records; read once."""
        return self._records

    def content_key(self) -> str:
        """See `files_key`: paths, sizes and modification times; fails where images are missing."""
        try:
            return files_key(self._records, self._origin)
        except MissingImages as error:
            root = self._root()
            if root is None or "image" in self.derive:
                raise
            raise found_elsewhere(error, root, self.columns.get("image", "image")) from error

    @property
    def _origin(self) -> str:
        return f"the manifest {self.path}"

    @cached_property
    def _records(self) -> Records:
        origin = self._origin
        refuse_saved_folder(self.path, origin)
        columns = {ours: theirs for ours, theirs in self.columns.items() if ours not in self.derive}
        if inside := holding_images(self.path):
            raise Unclear(
                f"{origin} holds the images themselves, in the column '{inside[0]}', and no paths.",
                [("Another source reads them", [("_target_", "guardtrain.sources.ParquetImagesSource")])],
            )
        theirs = without_blank_rows(read_table(self.path, {self.columns.get(name, name) for name in SCHEMA.names}))
        table = with_derived(theirs, self.derive, origin)
        table = as_record_columns(table, columns=columns, labels=self.labels, where=self.where, origin=origin)
        table = with_constants(table, self.constants, origin)
        if "id" not in table.column_names:
            if "image" not in table.column_names:
                raise without_images(theirs, columns, origin)
            table = table.append_column("id", table["image"])
        if "label" not in table.column_names:
            raise without_labels(theirs, columns, origin)
        if "image" in table.column_names and pa.types.is_string(table["image"].type):
            root = self._root_text()
            paths = [i and as_on_disk(i, root) for i in table["image"].to_pylist()]
            table = with_column(table, "image", pa.array(paths, pa.string()))
        table = with_source(table, self.source)
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
