"""The rows of a store's matrix files as one matrix that is read where it is indexed, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from guardtrain.errors import StoreError

_BLOCK_BYTES = 16 << 20  # of a matrix that is read from end to end
_SCATTERED_ROWS = 1024  # rows of one mapping where they are not neighbours: the system maps 64 KB around each


@dataclass(frozen=True)
class MatrixFile:
    """A `.npy` file and the number of its rows."""

    path: Path
    rows: int


class StoredRows(NDArrayOperatorsMixin):
    """`(N, D)` rows that lie in several `.npy` files, some or all of them, in any order.

    It stands where an array would: `len`, `shape`, `dtype`, and indexing with a number, a slice, a mask or row numbers
    give arrays; `np.asarray(rows, dtype=np.float32)` and arithmetic read all of it. `take` reads nothing: it gives
    other rows of the same files. A file is memory-mapped for as long as rows of it are copied, so neither open files
    nor resident memory grow with the store.

    Args:
        files: in order; floating, all of `dim` columns.
        dim: D.
        dtype: what rows are given as: float16 or float32.
        rows: `(N,)` which rows of the files, counted through all of them; None for all, in order.

    Raises (where rows are read):
        StoreError: a file that is gone or was changed, or a row that is not finite, with the file and the row.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for i in range(2):
    ...     np.save(folder / f"{i}.npy", np.full((2, 3), i, np.float16))
    >>> rows = StoredRows([MatrixFile(folder / "0.npy", 2), MatrixFile(folder / "1.npy", 2)], 3, np.float16)
    >>> rows.shape, rows.take([3, 0])[:, 0].tolist()
    ((4, 3), [1.0, 0.0])
    """

    ndim = 2

    def __init__(
        self, files: Sequence[MatrixFile], dim: int, dtype: np.dtype[Any] | type, rows: np.ndarray | None = None
    ) -> None:
        self.files, self.dtype = tuple(files), np.dtype(dtype)
        self._starts = np.cumsum([0, *(file.rows for file in self.files)])
        self._rows = rows
        self.shape = (int(self._starts[-1]) if rows is None else len(rows), dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"StoredRows(shape={self.shape}, dtype={self.dtype}, {len(self.files)} files)"

    def take(self, indices: np.ndarray | Sequence[int]) -> StoredRows:
        """The rows at `indices`, in that order, repeated where they are; nothing is read."""
        indices = self._within(np.asarray(indices, dtype=np.int64))
        rows = indices if self._rows is None else self._rows[indices]
        return StoredRows(self.files, self.shape[1], self.dtype, rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """An array of its own of the rows (and, in a tuple, columns) that `key` names."""
        if isinstance(key, tuple):
            first, *others = key
            single = isinstance(first, int | np.integer)
            return self[first][tuple(others) if single else (slice(None), *others)]
        if isinstance(key, int | np.integer):
            return self._read(self._within(np.array([key])), self.dtype)[0]
        if isinstance(key, slice):
            return self._read(np.arange(*key.indices(len(self))), self.dtype)
        chosen = np.asarray(key)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise IndexError(f"A mask of {chosen.shape} does not fit {len(self)} rows.")
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "iu"):
            raise IndexError(f"Rows are indexed with numbers, a slice or a mask; got {chosen.dtype} {chosen.shape}.")
        return self._read(self._within(chosen.astype(np.int64)), self.dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks():
            yield from block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Rows that lie in files cannot become an array without being copied.")
        return self._read(np.arange(len(self)), self.dtype if dtype is None else np.dtype(dtype))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = (np.asarray(value) if isinstance(value, StoredRows) else value for value in inputs)
        return getattr(ufunc, method)(*arrays, **options)

    def blocks(self, rows: int | None = None) -> Iterator[np.ndarray]:
        """All rows in order, `rows` at a time; by default about 16 MB."""
        step = rows or max(1, _BLOCK_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def _within(self, indices: np.ndarray) -> np.ndarray:
        """`indices` counted from the start; out of range is an error, as for arrays."""
        count = len(self)
        if len(indices) and (indices.min() < -count or indices.max() >= count):
            raise IndexError(f"Row {indices[(indices < -count) | (indices >= count)][0]} of {count} rows.")
        return np.where(indices < 0, indices + count, indices)

    def _read(self, indices: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        rows = indices if self._rows is None else self._rows[indices]
        out = np.empty((len(rows), self.shape[1]), dtype=dtype)
        # In the order of the files, so that each is mapped once and read forwards.
        order = None if bool((np.diff(rows) > 0).all()) else np.argsort(rows, kind="stable")
        ascending = rows if order is None else rows[order]
        bounds = np.searchsorted(ascending, self._starts)
        for number in np.flatnonzero(np.diff(bounds)):
            start, stop = int(bounds[number]), int(bounds[number + 1])
            local = ascending[start:stop] - self._starts[number]
            for first, last in self._chunks(local):
                places = slice(start + first, start + last) if order is None else order[start + first : start + last]
                out[places] = self._of_file(self.files[number], local[first:last], dtype)
        return out

    def _chunks(self, local: np.ndarray) -> Iterator[tuple[int, int]]:
        """Where to cut ascending rows of one file so that a mapping stays small in memory."""
        dense = local[-1] - local[0] < 4 * len(local)
        step = max(1, _BLOCK_BYTES // max(1, 4 * self.shape[1])) if dense else _SCATTERED_ROWS
        for first in range(0, len(local), step):
            yield first, min(first + step, len(local))

    def _of_file(self, file: MatrixFile, rows: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Rows of one file, ascending, in memory."""
        try:
            matrix = np.load(file.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{file.path} is no whole array any more: {error}") from error
        if matrix.shape != (file.rows, self.shape[1]):
            raise StoreError(
                f"{file.path} was changed while it was in use: it is {matrix.shape}, and was "
                f"{(file.rows, self.shape[1])}. Start again."
            )
        neighbours = bool((np.diff(rows) == 1).all())
        found = matrix[int(rows[0]) : int(rows[-1]) + 1] if neighbours else matrix[rows]
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused below
            block = np.array(found, dtype=dtype)
        if len(bad := np.flatnonzero(~np.isfinite(block).all(axis=1))):
            raise StoreError(f"{file.path} holds values that are not finite, first in row {rows[bad[0]]}.")
        return block
