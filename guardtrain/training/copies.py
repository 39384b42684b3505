"""Images of a test set that lie in a pool, too, as other records: they are known by their embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from guardtrain.embeddings import Embeddings
from guardtrain.embeddings.sketches import nearest, sketched
from guardtrain.words import listed

# Of the length of an embedding, how far two of one file may be apart: float16 rounds by a quarter of it.
SAME_FILE = 2e-3
_SEARCHED = 2 * SAME_FILE  # sketches are as far apart as embeddings give or take a fifth, and are rounded, too
_SHOWN = 3


def without_copies(
    name: str, pool: Embeddings, tests: Mapping[str, Embeddings], sketches: Mapping[str, np.ndarray]
) -> tuple[Embeddings, str | None]:
    """A pool without the records that show what an image of a test set shows, and without their pairs' other halves.

    Args:
        name: what the user calls the pool.
        pool: what is trained on.
        tests: the test sets by name.
        sketches: what `sketched` makes of each test set's embeddings, by the same names.

    Returns:
        what is left, and which were left out, for the user; None where there were none.
    """
    asked, found = sketched([pool.matrix]), dict[int, str]()
    for test, part in tests.items():
        near = nearest(sketches[test], asked, _SEARCHED)
        rows = np.flatnonzero(near >= 0)
        mine, theirs = (np.asarray(e.matrix[r], dtype=np.float32) for e, r in ((pool, rows), (part, near[rows])))
        length = np.linalg.norm(theirs, axis=1)
        same = (np.linalg.norm(mine - theirs, axis=1) <= SAME_FILE * length) & (length > 0)
        for row, other in zip(rows[same].tolist(), near[rows[same]].tolist(), strict=True):
            found.setdefault(row, f"{pool.records.ids[row]} = {part.records.ids[other]} of {test}")
    if not found:
        return pool, None
    copies = sorted(found)
    pairs = pool.records.pair_ids
    torn = {pairs[row] for row in copies if pairs[row] is not None}
    halves = [k for k, pair in enumerate(pairs) if pair in torn and k not in found]
    what = "1 image is an exact copy" if len(copies) == 1 else f"{len(copies):,} images are exact copies"
    also = f", with the other halves of {len(halves)} of their pairs" if halves else ""
    shown = listed([found[row] for row in copies], _SHOWN)
    text = f"{name}: {what} of test images and left out of training{also}: {shown}"
    return pool.take(np.delete(np.arange(len(pool)), copies + halves)), text
