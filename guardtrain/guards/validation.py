"""Which images a guard's calibration and thresholds are taken from: those that its run did not see.

They are of the real pool alone, though the run was picked on both pools. A choice among runs compares them, and a run
that learned the context loses on pairs. A threshold and a calibrated probability are promises: so many false alarms,
so many unsafe, in a population mixed like these images. The real pool stands for what the guard will see, with its own
share of unsafe images; the pair pool is made, half of it unsafe and its safe half edited to be hard. What both promise
together would hold for a population that nobody has, and would change with the number of pairs bought. So the pair
pool has no say here, and is measured beside: where the promise does not hold on it, the guard says so (see `beside`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardtrain.curves.validation import PAIRS, REAL, unseen, whole_groups
from guardtrain.embeddings import Embeddings
from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.settings import UNUSED, VALIDATION_SPLIT, GuardSettings
from guardtrain.mixtures import Mixture
from guardtrain.training.pools import Pools

_POOLS = {REAL: "the real pool", PAIRS: "the pair pool"}


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


def unused_rows(pools: Pools, mixture: Mixture, pool: str = REAL) -> np.ndarray:
    """Rows of a pool of whose group the run used no image, real or half of a pair; test sets are not in it."""
    part = _part(pools, pool)
    return np.array([], dtype=np.int64) if part is None else np.flatnonzero(unseen(pools, mixture, part.records))


def find_validation(settings: GuardSettings, pools: Pools, mixture: Mixture) -> Validation:
    """The images that `settings.validation` names, of those that the run was not trained on.

    Raises:
        ConfigError: neither `unused`, nor `val`, nor a test set.
        DataError: no images, or of one class only.
    """
    name, limit, seed = settings.validation, settings.validation_limit, settings.seed
    if name in pools.tests:
        part = pools.tests[name]
        return Validation.of(part, np.arange(len(part)), f"the test set {name}", is_test=True, limit=limit, seed=seed)
    if name not in (UNUSED, VALIDATION_SPLIT):
        raise ConfigError(
            f"validation is '{name}'; allowed: {UNUSED}, {VALIDATION_SPLIT}, or a test set: {', '.join(pools.tests)}."
        )
    if name == VALIDATION_SPLIT and REAL not in pools.validation:
        raise DataError(
            "No record of data.real has split 'val' (and a group of no test set). Mark some, or set validation=unused."
        )
    return _of_pool(settings, pools, mixture, REAL)


def find_others(settings: GuardSettings, pools: Pools, mixture: Mixture) -> list[Validation]:
    """The images of the pools that `find_validation` leaves out: what the guard's promises are looked at beside.

    A pool of which no image of either class is left has none.
    """
    found = []
    for pool in (REAL, PAIRS) if settings.validation in pools.tests else (PAIRS,):
        try:
            found.append(_of_pool(settings, pools, mixture, pool))
        except DataError:
            continue
    return found


def _of_pool(settings: GuardSettings, pools: Pools, mixture: Mixture, pool: str) -> Validation:
    """Images of a pool that the run was not trained on: marked as validation where these are asked for and there."""
    marked = pools.validation.get(pool) if settings.validation == VALIDATION_SPLIT else None
    limit, seed = settings.validation_limit, settings.seed
    if marked is not None:
        rows = np.flatnonzero(unseen(pools, mixture, marked.records))
        return Validation.of(marked, rows, f"records of {_POOLS[pool]} with split: val", limit=limit, seed=seed)
    part = _part(pools, pool)
    if part is None:
        raise DataError(f"This data has no {pool}.")
    origin = f"images of {_POOLS[pool]} that neither the run nor a test set used"
    return Validation.of(part, unused_rows(pools, mixture, pool), origin, limit=limit, seed=seed)


def _part(pools: Pools, pool: str) -> Embeddings | None:
    return pools.real if pool == REAL else pools.pairs
