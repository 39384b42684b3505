"""What chance alone gives: permutations that keep groups together, and p-values for many questions at once."""

from __future__ import annotations

import numpy as np

ALPHA = 0.05  # below which a p-value says something


def whole_groups(groups: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """About `most` rows in whole groups, ascending; all where there are no more."""
    if len(groups) <= most:
        return np.arange(len(groups))
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    kept = order[np.cumsum(sizes[order]) <= most]
    return np.flatnonzero(np.isin(index, kept))


def moved_rows(group: np.ndarray, count: int, rng: np.random.Generator, labels: np.ndarray | None = None) -> np.ndarray:
    """Which row each row's value comes from when whole groups change places with others of their size, `count` times.

    Args:
        group: `(N,)` int from 0.
        count: P.
        rng: draws the groups.
        labels: `(N,)` 0 or 1; where given, groups have as many images of each label as those they change places with,
            and values stay with the label.

    Returns:
        `(P, N)` int64.
    """
    order = np.argsort(group, kind="stable") if labels is None else np.lexsort((labels, group))
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    kinds = sizes if labels is None else sizes * (len(group) + 1) + np.bincount(group, weights=labels).astype(np.int64)
    out = np.empty((count, len(group)), dtype=np.int64)
    for kind in np.unique(kinds):
        members = starts[kinds == kind]
        within = np.arange(sizes[kinds == kind][0])
        drawn = members[rng.permuted(np.tile(np.arange(len(members)), (count, 1)), axis=1)]
        out[:, order[members[:, None] + within]] = order[drawn[:, :, None] + within]
    return out


def shuffled_labels(labels: np.ndarray, group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Labels moved between groups of one size, and shuffled within each: halves of a pair may change places.

    Args:
        labels: `(N,)` of any kind.
        group: `(N,)` int from 0.
        count: P, how many times.
        rng: of all draws.

    Returns:
        `(P, N)`.
    """
    between = labels[moved_rows(group, count, rng)]
    if len(np.unique(group)) == len(group):
        return between
    out = np.empty_like(between)
    by_group = np.argsort(group, kind="stable")
    # sorted by the group and, within it, by chance
    out[:, by_group] = np.take_along_axis(between, (group + rng.random(between.shape)).argsort(axis=1), axis=1)
    return out


def family_p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """How often chance brings *any* of Q questions as far above what it brings on average as each was observed to be.

    The single-step maxT of Westfall and Young (Resampling-Based Multiple Testing, 1993). The questions are made
    comparable by the mean and spread of their permuted values; the observed one counts among these (Phipson and Smyth,
    Statistical Applications in Genetics and Molecular Biology 9(1), 2010). A question whose permuted values are all the
    same has no say.

    Args:
        observed: `(Q,)`, large where there is something.
        null: `(Q, B)` the same under permutation b.

    Returns:
        `(Q,)` between 1 / (B + 1) and 1: at least the p-value of the question alone.

    >>> float(family_p_values(np.array([9.0, 0.0]), np.random.default_rng(0).normal(size=(2, 99)))[0])
    0.01
    """
    every = np.concatenate([observed[:, None], null], axis=1)
    spread = every.std(axis=1, keepdims=True)
    distance = np.where(spread > 1e-9, (every - every.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9), -np.inf)
    largest = distance[:, 1:].max(axis=0)
    return np.asarray((1 + (largest[None] >= distance[:, :1] - 1e-9).sum(axis=1)) / (1 + null.shape[1]))


def holm(p_values: np.ndarray) -> np.ndarray:
    """`(Q,)` p-values for many questions at once (Holm, Scandinavian Journal of Statistics 6(2), 1979); NaN stays NaN.

    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    out = np.full(len(p_values), np.nan)
    out[order] = np.minimum(np.maximum.accumulate((len(order) - np.arange(len(order))) * p_values[order]), 1)
    return out
