"""Pairs whose labels are swapped on purpose: what a share of wrong pairs costs."""

from __future__ import annotations

import numpy as np

from guardtrain.embeddings import Embeddings


def with_swapped_pairs(part: Embeddings, share: float, seed: int) -> tuple[Embeddings, str]:
    """`part` with the two labels of a share of its pairs swapped, and a line that says so.

    For one seed the pairs of a smaller share are among those of a larger one. Whether an image was edited stays as it
    was, and so do images that are in no pair.

    >>> from guardtrain.encoders.spec import external_spec
    >>> from guardtrain.records import Records
    >>> records = Records.from_columns(id=["a", "b", "c"], label=[1, 0, 1], pair_id=["p", "p", None])
    >>> part = Embeddings(records, np.zeros((3, 2)), external_spec({}, 2))
    >>> swapped, line = with_swapped_pairs(part, 1.0, 0)
    >>> swapped.records.labels.tolist(), line
    ([0, 1, 1], 'data.pairs: the labels of 1 of 1 pairs are swapped (data.swapped=1)')
    """
    pair_ids = part.records.pair_ids
    names = sorted({str(name) for name in pair_ids if name is not None})
    count = round(share * len(names))
    chosen = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count].tolist()}
    rows = np.array([name is not None and str(name) in chosen for name in pair_ids], dtype=bool)
    labels = np.where(rows, 1 - part.records.labels, part.records.labels).astype(np.int8)
    line = f"data.pairs: the labels of {count:,} of {len(names):,} pairs are swapped (data.swapped={share:g})"
    return Embeddings(part.records.with_column("label", labels), part.matrix, part.spec), line
