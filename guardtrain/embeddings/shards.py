"""The files of a store's shards: how they are called, found, and looked into without being read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from guardtrain.embeddings.journal import read_current
from guardtrain.errors import StoreError
from guardtrain.sources.class_names import with_class_names

MATRIX_FOLDER, METADATA_FOLDER = "img_emb", "metadata"
_MATRIX_NAME, _METADATA_NAME = r"img_emb_(\d+)\.npy", r"metadata_(\d+)\.parquet"


@dataclass(frozen=True)
class Shard:
    """One shard's files and the number of its rows."""

    number: int
    matrix: Path
    metadata: Path
    rows: int
    dim: int
    dtype: np.dtype[Any]


def file_names(folder: Path, number: int, count: int) -> tuple[Path, Path]:
    """Matrix and metadata file of a shard that we write: four digits, or as many as `count` shards need."""
    digits = max(4, len(str(count - 1)))
    return (
        folder / MATRIX_FOLDER / f"img_emb_{number:0{digits}d}.npy",
        folder / METADATA_FOLDER / f"metadata_{number:0{digits}d}.parquet",
    )


def whole_shard(folder: Path, number: int, files: tuple[Path | None, Path | None]) -> Shard:
    """The shard of these files, both of them whole and of equally many rows; reads their headers.

    Raises:
        StoreError: they are not.
    """
    matrix, metadata = files
    assert matrix is not None
    assert metadata is not None
    rows, dim, dtype = matrix_shape(matrix)
    if (noted := metadata_rows(metadata)) != rows:
        raise StoreError(f"Shard {number} of the store {folder} has {rows} embeddings and metadata of {noted}.")
    return Shard(number, matrix, metadata, rows, dim, dtype)


def shard_numbers(folder: Path) -> dict[int, tuple[Path | None, Path | None]]:
    """Number -> matrix and metadata file, by ascending number; None for the one that is not there."""
    matrices = _numbered(folder / MATRIX_FOLDER, _MATRIX_NAME)
    metadata = _numbered(folder / METADATA_FOLDER, _METADATA_NAME)
    return {n: (matrices.get(n), metadata.get(n)) for n in sorted(matrices.keys() | metadata.keys())}


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    matches = ((re.fullmatch(pattern, p.name), p) for p in folder.iterdir())
    return {int(m.group(1)): p for m, p in matches if m}


def matrix_shape(file: Path) -> tuple[int, int, np.dtype[Any]]:
    """Rows, dimensions and type of a matrix file; reads its header.

    Raises:
        StoreError: no whole array, or one that is not (rows, dimensions) of floating type.
    """
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StoreError(f"{file} is no whole array: {error}") from error
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32, np.float64):
        raise StoreError(f"{file} must be (rows, dimensions) of floating type; it is {array.shape} {array.dtype}.")
    return int(array.shape[0]), int(array.shape[1]), array.dtype


def metadata_rows(file: Path) -> int:
    """Rows of a metadata file; reads its footer.

    Raises:
        StoreError: no whole Parquet file.
    """
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{file} is no whole Parquet file: {error}") from error


def read_metadata(file: Path) -> pa.Table:
    """A metadata file as it is, but that class labels of `datasets`, which are numbers there, become their names.

    Raises:
        StoreError: no whole Parquet file.
    """
    try:
        table = read_current(file, pq.read_table)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{file} is no whole Parquet file: {str(error).splitlines()[0]}") from error
    return with_class_names(table)
