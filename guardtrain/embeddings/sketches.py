"""Sixteen numbers of an embedding, by which pictures are known again.

Files of one picture differ, pools may be embeddings alone, and the same picture has slightly other embeddings on
another processor or in bfloat16: digests tell none of these. A sketch is the embedding's products with 16 fixed
directions of random signs: two embeddings at the distance d are d apart in these, too, give or take a fifth (root mean
square; Johnson and Lindenstrauss, 1984; with signs, Achlioptas, 2003). No picture can be made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from guardtrain.embeddings.rows import StoredRows

NUMBERS = 16
_SEED = 20_021_984  # of the directions, which must never change
_ROWS = 8192  # embeddings read at once


def sketched(parts: Sequence[np.ndarray | StoredRows]) -> np.ndarray:
    """(M, 16) float16: the sketches of embeddings, each part (M_i, D) of any length but zero."""
    found = [np.zeros((0, NUMBERS), dtype=np.float16)]
    for part in parts:
        for start in range(0, len(part), _ROWS):
            rows = np.asarray(part[start : start + _ROWS], dtype=np.float32)
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
            found.append((rows @ _directions(rows.shape[1])).astype(np.float16))
    return np.concatenate(found)


@lru_cache(maxsize=4)
def _directions(dim: int) -> np.ndarray:
    """(D, 16) float32 of 1 and -1; the raw bits of this generator are the same in every version of numpy."""
    words = np.random.PCG64(_SEED).random_raw(-(-dim * NUMBERS // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: dim * NUMBERS]
    return (2 * bits.astype(np.float32) - 1).reshape(dim, NUMBERS)


def nearest(known: np.ndarray, asked: np.ndarray, distance: float) -> np.ndarray:
    """(N,) int64: of each sketch the row of the nearest known one, -1 where none is near.

    Args:
        known: (M, 16) sketches.
        asked: (N, 16) sketches.
        distance: up to which they are near, of embeddings of unit norm.
    """
    if not len(known) or not len(asked):
        return np.full(len(asked), -1, dtype=np.int64)
    from scipy.spatial import KDTree

    points, first = np.unique(known.astype(np.float64), axis=0, return_index=True)
    tree = KDTree(points)
    # a product with a direction of signs is as large, in the mean of squares, as the distance itself
    distances, rows = tree.query(asked.astype(np.float64), distance_upper_bound=distance * NUMBERS**0.5)
    return np.where(np.isfinite(distances), first[rows.clip(max=len(first) - 1)], -1)
