"""What records say of a test set: its pairs, and its slices by category and by source."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guardtrain.records import Records


def record_pair_index(records: Records) -> Tensor:
    """(N,) int64: the number of the pair a record belongs to, -1 for none.

    Pairs are numbered in the order of their ids. A half whose other half is not among the records counts as none.

    >>> record_pair_index(Records.from_columns(id=["a", "b", "c"], label=[0, 1, 1], pair_id=["p", "p", None])).tolist()
    [0, 0, -1]
    """
    index = np.full(len(records), -1, dtype=np.int64)
    rows = np.flatnonzero([pair is not None for pair in records.pair_ids])
    if len(rows):
        _, inverse, size = np.unique(records.pair_ids[rows].astype(str), return_inverse=True, return_counts=True)
        whole = size == 2
        index[rows] = np.where(whole, np.cumsum(whole) - 1, -1)[inverse]
    return torch.from_numpy(index)


def record_pairs(records: Records) -> tuple[Tensor, Tensor]:
    """Rows of the safe and of the unsafe half of every whole pair, each (P,) int64, in the order of the pair ids.

    >>> record_pairs(Records.from_columns(id=["a", "b", "c"], label=[1, 0, 1], pair_id=["p", "p", None]))
    (tensor([1]), tensor([0]))
    """
    index = record_pair_index(records).numpy()
    order = np.lexsort((records.labels, index))
    order = order[index[order] >= 0]
    return torch.from_numpy(order[0::2].copy()), torch.from_numpy(order[1::2].copy())


def record_slices(records: Records) -> dict[tuple[str, str], np.ndarray]:
    """The slices of a test set: ("all", "all"), then every ("category", c) and ("source", s), names sorted.

    Returns:
        (kind, name) to a mask (N,) bool. Records without a category or source are in no such slice.

    >>> list(record_slices(Records.from_columns(id=["a"], label=[0], category=["gun"])))
    [('all', 'all'), ('category', 'gun')]
    """
    slices = {("all", "all"): np.ones(len(records), dtype=bool)}
    for kind, values in (("category", records.categories), ("source", records.sources)):
        for name in sorted({str(v) for v in values if v is not None}):
            slices[kind, name] = np.asarray(values == name, dtype=bool)
    return slices
