"""What pairs look like in embedding space: how near their halves are, and whether their differences agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardtrain.curves.audit.stacked import StackedRows
from guardtrain.curves.bootstrap import group_draws, interval


@dataclass(frozen=True)
class PairGeometry:
    """Similarities of P pairs; all are cosines.

    Args:
        n_pairs: P, the pairs measured.
        of_pairs: how many there are.
        within: mean cosine of the two halves of a pair; `within_low`, `within_high` its 5 % and 95 % quantiles.
        between: mean cosine of one pair's safe half and another's unsafe half.
        found: share of safe halves whose nearest unsafe half, of those measured, is their own; chance is 1/P, and the
            more pairs there are the lower it is.
        consistency: mean cosine of two pairs' differences (unsafe minus safe), with its bootstrap interval.
        unpaired: the same for differences of halves of different pairs, each half used once.
        same_category: the same for two pairs of one category; NaN without categories.
        with_real: cosine of the mean difference of pairs and that of the real pool's class means; NaN without one.
    """

    n_pairs: int
    of_pairs: int
    within: float
    within_low: float
    within_high: float
    between: float
    found: float
    consistency: float
    consistency_low: float
    consistency_high: float
    unpaired: float
    same_category: float = np.nan
    with_real: float = np.nan


def pair_geometry(
    safe: np.ndarray | StackedRows,
    unsafe: np.ndarray | StackedRows,
    categories: np.ndarray | None = None,
    real_direction: np.ndarray | None = None,
    *,
    most: int = 2000,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairGeometry:
    """`PairGeometry` of aligned halves.

    Args:
        safe, unsafe: (P, D) float, row i of both is a pair.
        categories: (P,) names or None.
        real_direction: (D,) unsafe minus safe class mean of real images.
        most: pairs used; more are drawn from.
        replicates, confidence, seed: of the bootstrap over pairs, and of all draws.

    >>> geometry = pair_geometry(np.eye(3), np.eye(3) + [5.0, 0.0, 0.0])
    >>> round(geometry.consistency, 3)
    1.0
    """
    rng = np.random.default_rng(seed)
    of = len(safe)
    if of > most:
        rows = np.sort(rng.permutation(of)[:most])
        safe, unsafe = safe[rows], unsafe[rows]
        categories = None if categories is None else categories[rows]
    n = len(safe)
    safe, unsafe = np.asarray(safe, dtype=np.float64), np.asarray(unsafe, dtype=np.float64)
    cosine = unit(safe) @ unit(unsafe).T
    own = np.diag(cosine)
    differences = unit(unsafe - safe)
    draws = np.column_stack([np.ones(n, dtype=np.uint16), group_draws(n, replicates, rng)])
    values = mean_cosine(differences, draws.astype(np.float64))
    low, high = interval(values[1:], confidence)
    shift = np.roll(np.arange(n), 1)
    order = rng.permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = order[shift]  # one cycle: nobody is paired with itself
    once = np.ones((n, 1))
    mean = (unsafe - safe).mean(axis=0)
    return PairGeometry(
        n,
        of,
        float(own.mean()),
        float(np.quantile(own, 0.05)),
        float(np.quantile(own, 0.95)),
        float((cosine.sum() - own.sum()) / (n * (n - 1))) if n > 1 else np.nan,
        float((cosine.argmax(axis=1) == np.arange(n)).mean()),
        float(values[0]),
        float(low),
        float(high),
        float(mean_cosine(unit(unsafe[partner] - safe), once)[0]) if n > 1 else np.nan,
        _same_category(differences, categories),
        np.nan if real_direction is None else float(unit(mean[None])[0] @ unit(real_direction[None])[0]),
    )


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of `x` (N, D) at length 1; rows of zeros stay."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1))


def mean_cosine(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean cosine over couples of different rows, row i counting `weights[i, b]` times.

    `(‖Σ w_i u_i‖² - Σ w_i² ‖u_i‖²) / ((Σ w_i)² - Σ w_i²)`: a row that is drawn twice is no couple with itself.

    Args:
        directions: (P, D) unit rows (or zeros).
        weights: (P, B).

    Returns:
        (B,) float64, NaN where there is no couple.
    """
    total = np.square(weights.T @ directions).sum(axis=1)
    squares = np.square(weights)
    couples = weights.sum(axis=0) ** 2 - squares.sum(axis=0)
    same = squares.T @ np.square(directions).sum(axis=1)
    return np.asarray((total - same) / np.where(couples > 0, couples, np.nan))


def _same_category(differences: np.ndarray, categories: np.ndarray | None) -> float:
    """Mean cosine over couples of pairs of one category."""
    if categories is None:
        return np.nan
    names = [name for name in categories if name is not None]
    kinds = sorted(set(names))
    if len(kinds) < 2:
        return np.nan
    total = couples = 0.0
    for kind in kinds:
        own = differences[np.asarray([c == kind for c in categories])]
        count = len(own) * (len(own) - 1)
        if count:
            total += float(mean_cosine(own, np.ones((len(own), 1)))[0]) * count
            couples += count
    return total / couples if couples else np.nan
