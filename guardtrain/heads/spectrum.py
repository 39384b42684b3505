"""The eigendecomposition of a scatter matrix, and with it the inverse for every ridge penalty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvectors and eigenvalues of `XᵀX`, without those that are zero.

    Args:
        directions: `(D, m)` float64, orthonormal columns; m is the rank of X.
        squares: `(m,)` float64 eigenvalues, positive.
        images: `(n, m)` float64, orthonormal columns: `X = images · diag(√squares) · directionsᵀ`.
    """

    directions: np.ndarray
    squares: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Spectrum:
        """The spectrum of `rows` `(n, D)`, from the smaller of `XᵀX` and `XXᵀ`.

        Raises:
            np.linalg.LinAlgError: a value of `rows` is not finite.
        """
        rows = np.asarray(rows, dtype=np.float64)
        if not np.isfinite(rows).all():
            raise np.linalg.LinAlgError("an embedding has a value that is not finite")
        n, dim = rows.shape
        dual = n < dim
        squares, vectors = np.linalg.eigh(rows @ rows.T if dual else rows.T @ rows)
        kept = squares > max(n, dim) * np.finfo(np.float64).eps * max(squares.max(initial=0.0), 0.0)
        squares, vectors = squares[kept], vectors[:, kept]
        others = (rows.T @ vectors if dual else rows @ vectors) / np.sqrt(squares)
        return cls(others, squares, vectors) if dual else cls(vectors, squares, others)

    @property
    def trace(self) -> float:
        """The sum of all squared entries of X."""
        return float(self.squares.sum())

    def solve(self, vectors: np.ndarray, penalty: float) -> np.ndarray:
        """`(XᵀX + penalty·I)⁻¹ v` for each row v of `vectors` `(..., D)`; the pseudo-inverse for a penalty of 0."""
        inside = vectors @ self.directions
        solved = (inside / (self.squares + penalty)) @ self.directions.T
        if penalty > 0:
            solved += (vectors - inside @ self.directions.T) / penalty
        return solved
