"""Splits that keep groups whole: a stratified hold-out, and folds that stay put as the budget grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardtrain.errors import MixtureError
from guardtrain.mixtures.ordering import generator, interleave, order_real
from guardtrain.mixtures.pool import Pool


def hold_out(pool: Pool, *, groups: int | None = None, fraction: float | None = None, seed: int) -> np.ndarray:
    """Choose whole groups to hold out, stratified by the labels in a group, then by label and category.

    Groups with the same labels in them (safe only, unsafe only, both) form a class; of each class the share held out is
    proportional within less than 2 groups (1 where there are two classes, exact where there is one, as with
    pairs), and within a class the same holds for groups with the same set of label and category. For one
    seed, fewer groups are a subset of more.

    Args:
        pool: what to choose from.
        groups: how many groups to hold out; or
        fraction: in (0, 1), the share of groups, rounded to the nearest whole number of groups.
        seed: of the choice.

    Returns:
        (N,) bool, True for the rows held out.

    Raises:
        MixtureError: neither or both of `groups` and `fraction`, or a number of groups that is not between 1 and one
            less than there are (something must remain).

    >>> pool = Pool(ids=list("abcd"), labels=[0, 1, 0, 1], groups=list("ppqq"))
    >>> int(hold_out(pool, groups=1, seed=0).sum())
    2
    """
    if (groups is None) == (fraction is None):
        raise MixtureError(
            f"Give either groups or fraction to hold out, not both; they are {groups!r} and {fraction!r}."
        )
    rows = pool.canonical
    names, inverse = np.unique(pool.groups[rows], return_inverse=True)
    total = len(names)
    if fraction is not None:
        if not 0 < fraction < 1:
            raise MixtureError(f"The fraction to hold out is {fraction!r}; a share between 0 and 1 is needed.")
        groups = round(fraction * total)
    assert groups is not None
    if not 1 <= groups < total:
        asked = f"{groups} groups" if fraction is None else f"a fraction of {fraction:.6g} ({groups} groups)"
        raise MixtureError(
            f"The {pool.name} pool has {total} groups; holding out {asked} is not possible: at least 1 is to be "
            f"held out and at least 1 must remain, so at least {max(groups, 1) + 1} are needed."
        )
    _, cell = np.unique(np.stack([pool.labels[rows].astype(str), pool.strata[rows]]), axis=1, return_inverse=True)
    cells: list[set[int]] = [set() for _ in names]
    for group, value in zip(inverse.tolist(), cell.reshape(-1).tolist(), strict=True):
        cells[group].add(value)
    kinds = {kind: number for number, kind in enumerate(sorted({tuple(sorted(c)) for c in cells}))}
    kind = np.array([kinds[tuple(sorted(c))] for c in cells])
    unsafe = np.bincount(inverse, weights=pool.labels[rows]) / np.bincount(inverse)
    composition = (unsafe > 0).astype(np.int64) + (unsafe == 1)
    rng = generator(seed, "hold_out")
    pattern = composition[interleave(composition, rng)]  # which class stands at which place
    order = np.empty(total, dtype=np.int64)
    for value in np.unique(composition):
        members = np.flatnonzero(composition == value)
        order[pattern == value] = members[interleave(kind[members], rng)]
    chosen = np.zeros(total, dtype=bool)
    chosen[order[:groups]] = True
    mask = np.empty(pool.n, dtype=bool)
    mask[rows] = chosen[inverse]
    return mask


def folds(pool: Pool, k: int, seed: int, *, order: np.ndarray | None = None) -> np.ndarray:
    """Assign every row of a pool to one of k folds, groups kept whole, stratified by label and category.

    Folds are dealt along an ordering of the pool, so a group's fold depends on nothing that comes after it: the folds
    of a prefix are the prefix of the folds. The first k groups lie in k different folds. Where every group is one
    image, then in every prefix of `order_real` the folds were measured (80 random pools, up to 11 categories and 6
    folds) to differ by at most 2 images of one label and category, 2 of one label, and 3 in all. (Dealing round-robin
    within each label and category instead gives 1, 5 and 7: too uneven for small budgets.)

    `Mixer.folds` does the same for both pools of a mixture at once. A validation split is "fold 0 of k".

    Args:
        pool: what to split.
        k: number of folds, >= 2.
        seed: of the ordering and of which fold comes first.
        order: (M,) rows, the ordering to deal along; `order_real(pool, seed)` if None. Groups without a row in
            it are dealt last.

    Returns:
        (N,) int64 in [0, k).

    Raises:
        MixtureError: k < 2, or fewer groups than folds.

    >>> pool = Pool(ids=list("abcd"), labels=[0, 1, 0, 1], groups=list("ppqq"))
    >>> sorted(folds(pool, 2, seed=0).tolist())
    [0, 0, 1, 1]
    """
    k = checked_k(k)
    total = len(np.unique(pool.groups))
    if total < k:
        raise MixtureError(f"The {pool.name} pool has {total} groups; {k} folds need at least {k}.")
    return assign_folds([(pool, order_real(pool, seed) if order is None else order)], k, seed)[0]


def checked_k(k: int) -> int:
    """`k` as an int; raises MixtureError unless it is a whole number >= 2."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 2:
        raise MixtureError(f"The number of folds is {k!r}; a whole number of at least 2 is needed.")
    return int(k)


def assign_folds(pools: Sequence[tuple[Pool, np.ndarray]], k: int, seed: int) -> list[np.ndarray]:
    """The folds of several pools, each dealt along its ordering; a group that lies in two pools has one fold.

    A group goes where the images of its first image's label and category, plus those of its label, are fewest; among
    equals where those of its label are fewest; then the fewest of all. What is left of ties is settled by a random
    order of the folds, taken backwards in every second pool, so that the first groups of two pools fill different
    folds.

    Args:
        pools: pools with (M,) int64 orderings of their rows.
        k: number of folds, >= 2.
        seed: of the order of the folds.

    Returns:
        for each pool (N,) int64 in [0, k).
    """
    k = checked_k(k)
    preference = generator(seed, "folds").permutation(k)
    fold_of_group: dict[str, int] = {}
    result = []
    for number, (pool, order) in enumerate(pools):
        rest = pool.canonical[~np.isin(pool.canonical, order)]
        rank = np.argsort(preference if number % 2 == 0 else preference[::-1]).tolist()
        _, cell = np.unique(np.stack([pool.labels.astype(str), pool.strata]), axis=1, return_inverse=True)
        cells, groups, labels = cell.reshape(-1).tolist(), pool.groups.tolist(), pool.labels.tolist()
        in_cell = [[0] * k for _ in range(max(cells) + 1)]
        in_label = [[0] * k for _ in range(2)]
        in_fold = [0] * k
        for row in [*order.tolist(), *rest.tolist()]:
            of_cell, of_label = in_cell[cells[row]], in_label[labels[row]]
            fold = fold_of_group.get(groups[row])
            if fold is None:
                fold = min(range(k), key=lambda f: (of_cell[f] + of_label[f], of_label[f], in_fold[f], rank[f]))
                fold_of_group[groups[row]] = fold
            of_cell[fold] += 1
            of_label[fold] += 1
            in_fold[fold] += 1
        result.append(np.array([fold_of_group[group] for group in groups], dtype=np.int64))
    return result


def trainable(fold: np.ndarray, labels: np.ndarray, k: int) -> bool:
    """Whether none of k folds is empty, and the others of each hold both classes, which a head needs to be trained.

    Args:
        fold: (n,) int64 in [0, k).
        labels: (n,) 0 or 1.

    >>> trainable(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2)
    True
    >>> trainable(np.array([0, 1, 0, 0]), np.array([0, 0, 1, 1]), 2)  # without fold 0 there is no 1
    False
    """
    counts = np.stack([np.bincount(fold[labels == label], minlength=k) for label in (0, 1)])  # (2, k)
    return bool((counts.sum(axis=0) > 0).all() and (counts.sum(axis=1, keepdims=True) > counts).all())


def deal_both_classes(groups: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Deal groups to k folds so that each fold has images of both classes.

    Groups with both classes are dealt first, then those of the class with fewer groups, then the others, each to the
    fold with the fewest images of that class (of equals the fewest in all, then the first), in the order in which they
    come.

    Args:
        groups: (n,) names or numbers.
        labels: (n,) 0 or 1.
        k: number of folds, from 2 up to the number of groups of the class that is in fewer groups.

    Returns:
        (n,) int64 in [0, k).

    >>> deal_both_classes(np.array(list("abbcd")), np.array([0, 0, 1, 1, 0]), 2).tolist()
    [1, 0, 0, 1, 0]
    """
    names, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.stack([np.bincount(inverse[labels == label], minlength=len(names)) for label in (0, 1)])  # (2, G)
    scarcer = int(np.argmin((sizes > 0).sum(axis=1)))
    kind = np.where((sizes > 0).all(axis=0), 0, np.where(sizes[scarcer] > 0, 1, 2))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    held = np.zeros((2, k), dtype=np.int64)
    for group in np.lexsort((first, kind)).tolist():
        label = scarcer if kind[group] < 2 else 1 - scarcer
        fold = min(range(k), key=lambda f: (held[label, f], held[:, f].sum(), f))
        held[:, fold] += sizes[:, group]
        fold_of_group[group] = fold
    return fold_of_group[inverse]
