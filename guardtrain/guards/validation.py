"""Which images a guard's calibration and thresholds are taken from: those that its run did not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardtrain.curves.validation import unseen, whole_groups
from guardtrain.embeddings import Embeddings
from guardtrain.errors import DataError
from guardtrain.mixtures import Mixture
from guardtrain.training.pools import Pools


@dataclass(frozen=True, eq=False)
class Validation:
    """Labelled images that the head was not trained on.

    Args:
        embeddings: (N, D) float32.
        labels: (N,) 0 safe, 1 unsafe.
        groups: (N,) never independent evidence of each other.
        categories: (N,) names or None.
        origin: where they are from, in words.
        is_test: whether they are a test set, whose metrics are then no longer those of unseen images.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    categories: np.ndarray
    origin: str
    is_test: bool = False

    @classmethod
    def of(
        cls, part: Embeddings, rows: np.ndarray, origin: str, *, limit: int, seed: int, is_test: bool = False
    ) -> Validation:
        """Some rows of a pool, at most `limit`: then whole groups are drawn, in an order that `seed` gives.

        Raises:
            DataError: no rows, or one class only.
        """
        groups = part.records.groups.astype(str)
        if len(rows) > limit:
            rows = rows[whole_groups(groups[rows], limit, seed)]
            origin = f"{origin} (drawn at random)"
        labels = part.records.labels[rows].astype(np.int64)
        unsafe = int(labels.sum())
        if not 0 < unsafe < len(rows):
            raise DataError(
                f"Validation has {len(rows) - unsafe} safe and {unsafe} unsafe images ({origin}); calibration and "
                "thresholds need both. Leave labelled images out of training (a smaller mixture.budget), mark some "
                "with split: val (validation=val), or name a test set (validation=NAME)."
            )
        matrix = np.asarray(part.matrix[rows], dtype=np.float32)
        return cls(matrix, labels, groups[rows], part.records.categories[rows], origin, is_test)


def unused_rows(pools: Pools, mixture: Mixture) -> np.ndarray:
    """Rows of the real pool of whose group the run used no image, real or half of a pair; test sets are not in it."""
    return np.flatnonzero(unseen(pools, mixture, pools.real.records))
