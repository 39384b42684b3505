"""Parquet files that hold the images themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardtrain.sources.parquet_rows import ParquetRows
from guardtrain.sources.paths import files_named, refuse_saved_folder
from guardtrain.sources.row_source import RowImageSource
from guardtrain.sources.rows import ImageRows


@dataclass
class ParquetImagesSource(RowImageSource):
    """Images in Parquet files: as Hugging Face's `{bytes, path}`, as plain binary, or by path or URL.

    Only what is about to be decoded is read, a few megabytes of a row group at a time, so memory does not grow with
    the number of images. A page of the file (mostly up to 1,024 images, or a row group if that is less) is the least
    that can be read: rewrite files of large images with smaller row groups. Read them in order: going back within a row
    group starts it anew.

    Args:
        path: a Parquet file, a folder of them, a glob or a brace pattern; local or an fsspec URL.
        columns, labels, where, derive, constants, pairs, unpaired, split, source: see `RowMapping`. `columns.image`
            names the image column; default: `image`, else the only one that holds images.

    Ids default to the file's name and the row. Class labels that `datasets` wrote as numbers are read by name.

    Raises (on `records`, `content_key`):
        DataError: no files, files that cannot be read, columns or values at fault.
    """

    path: str = field(kw_only=False)

    @property
    def _origin(self) -> str:
        return f"the Parquet images {self.path}"

    def _open(self) -> ImageRows:
        refuse_saved_folder(self.path, self._origin)
        files = files_named(self.path, (".parquet",), "Parquet files")
        return ParquetRows(files, self.columns.get("image"), self._origin)
