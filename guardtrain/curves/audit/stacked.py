"""Rows of several embedding matrices as one, read where they are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guardtrain.embeddings.rows import StoredRows

_BLOCK_ROWS = 8192


class StackedRows:
    """`(N, D)` rows of one matrix or several, one after the other, all or some of them; copied where they are indexed.

    Args:
        parts: `(N_i, D)` each, in memory or in stores.
        rows: `(N,)` which rows, counted through all parts; None for all.

    >>> stacked = StackedRows([np.zeros((2, 3)), np.ones((2, 3))]).take(np.array([3, 0]))
    >>> stacked.shape, stacked[np.array([0, 1])][:, 0].tolist()
    ((2, 3), [1.0, 0.0])
    """

    ndim = 2

    def __init__(self, parts: Sequence[np.ndarray | StoredRows], rows: np.ndarray | None = None) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows
        self.shape = (len(self._rows), int(self._parts[0].shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: np.ndarray) -> StackedRows:
        """The rows at `rows`, in that order; nothing is read."""
        return StackedRows(self._parts, self._rows[rows])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """`(n, D)` float32 copy of the rows at `rows` `(n,)`."""
        wanted = self._rows[rows]
        out = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            own = np.flatnonzero((wanted >= start) & (wanted < stop))
            if len(own):
                out[own] = part[wanted[own] - start]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))].astype(np.float32 if dtype is None else dtype, copy=False)

    def mean(self) -> np.ndarray:
        """`(D,)` float64 mean of all rows, a block at a time."""
        total = np.zeros(self.shape[1])
        for start in range(0, len(self), _BLOCK_ROWS):
            total += self[np.arange(start, min(start + _BLOCK_ROWS, len(self)))].sum(axis=0, dtype=np.float64)
        return np.asarray(total / len(self)) if len(self) else np.full(self.shape[1], np.nan)
