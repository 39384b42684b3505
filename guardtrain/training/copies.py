"""Images of a test set that lie in a pool, too, as other records: they are known by their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guardtrain.embeddings import Embeddings
from guardtrain.embeddings.sketches import nearest, sketched
from guardtrain.sources.tables import listed

# Of the length of an embedding, how far two of one file may be apart: float16 rounds by a quarter of it.
SAME_FILE = 2e-3
_SEARCHED = 2 * SAME_FILE  # sketches are as far apart as embeddings give or take a fifth, and are rounded, too
_SHOWN = 3


@dataclass(frozen=True)
class Copies:
    """Records of a pool that show what an image of a test set shows.

    Args:
        rows: (C,) int64, ascending, in the pool.
        halves: (H,) int64, rows of the other halves of their pairs, where these are no copies themselves.
        text: which, for the user.
    """

    rows: np.ndarray
    halves: np.ndarray
    text: str

    def without(self, pool: Embeddings) -> Embeddings:
        """The pool without them and their pairs."""
        keep = np.ones(len(pool), dtype=bool)
        keep[self.rows] = keep[self.halves] = False
        return pool.take(np.flatnonzero(keep))


def copies(name: str, pool: Embeddings, tests: Mapping[str, Embeddings]) -> Copies | None:
    """The records of a pool whose embeddings are those of images of a test set; None where there are none.

    Args:
        name: what the user calls the pool.
        pool: what is trained on.
        tests: the test sets by name.
    """
    asked, found = sketched([pool.matrix]), dict[int, str]()
    for test, part in tests.items():
        near = nearest(sketched([part.matrix]), asked, _SEARCHED)
        rows = np.flatnonzero(near >= 0)
        mine, theirs = (np.asarray(e.matrix[r], dtype=np.float32) for e, r in ((pool, rows), (part, near[rows])))
        length = np.linalg.norm(theirs, axis=1)
        same = (np.linalg.norm(mine - theirs, axis=1) <= SAME_FILE * length) & (length > 0)
        for row, other in zip(rows[same].tolist(), near[rows[same]].tolist(), strict=True):
            found.setdefault(row, f"{pool.records.ids[row]} = {part.records.ids[other]} of {test}")
    if not found:
        return None
    rows = np.array(sorted(found), dtype=np.int64)
    pairs = pool.records.pair_ids
    torn = {pairs[row] for row in rows if pairs[row] is not None}
    halves = np.array([k for k, pair in enumerate(pairs) if pair in torn and k not in found], dtype=np.int64)
    what = "1 image is an exact copy" if len(rows) == 1 else f"{len(rows):,} images are exact copies"
    also = f", with the other halves of {len(halves)} of their pairs" if len(halves) else ""
    shown = listed([found[int(row)] for row in rows], _SHOWN)
    text = f"{name}: {what} of test images and left out of training{also}: {shown}"
    return Copies(rows, halves, text)
