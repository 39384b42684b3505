from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guardtrain.errors import MixtureError
from guardtrain.mixtures import Pool, folds, hold_out, order_pairs, order_real

from .strategies import SEEDS, pair_pools, real_pools, shuffled


@given(real_pools(grouped=True), SEEDS, st.data())
def test_hold_out_takes_exactly_so_many_whole_groups(pool: Pool, seed: int, data: st.DataObject) -> None:
    total = len(set(pool.groups.tolist()))
    assume(total >= 2)
    wanted = data.draw(st.integers(1, total - 1))
    mask = hold_out(pool, groups=wanted, seed=seed)
    out, stay = set(pool.groups[mask].tolist()), set(pool.groups[~mask].tolist())
    assert len(out) == wanted and not out & stay
    fewer = hold_out(pool, groups=max(1, wanted - 1), seed=seed)
    assert not (fewer & ~mask).any()
    other = shuffled(pool, 5)
    assert set(other.ids[hold_out(other, groups=wanted, seed=seed)].tolist()) == set(pool.ids[mask].tolist())


@given(real_pools(), SEEDS, st.floats(0.1, 0.9))
def test_hold_out_is_stratified_by_label_then_category(pool: Pool, seed: int, fraction: float) -> None:
    wanted = round(fraction * pool.n)
    assume(1 <= wanted < pool.n)
    mask = hold_out(pool, fraction=fraction, seed=seed)
    assert mask.sum() == wanted
    for label, there in enumerate(pool.class_counts):
        held = mask[pool.labels == label].sum()
        assert abs(held - wanted * there / pool.n) <= 1 + 1e-9
        in_class = pool.strata[pool.labels == label]
        for category, size in Counter(in_class.tolist()).items():
            taken = (mask & (pool.labels == label) & (pool.strata == category)).sum()
            assert abs(taken - held * size / there) < 2


@given(pair_pools(min_pairs=2), SEEDS)
def test_hold_out_keeps_pairs_whole(pool: Pool, seed: int) -> None:
    mask = hold_out(pool, groups=pool.n_pairs // 2, seed=seed)
    assert pool.take(mask).n_pairs == pool.n_pairs // 2
    assert pool.take(~mask).n_pairs == pool.n_pairs - pool.n_pairs // 2


def test_hold_out_refusals_give_numbers() -> None:
    pool = Pool(list("abcd"), [0, 1, 0, 1], groups=list("ppqq"))  # type: ignore[arg-type]
    with pytest.raises(MixtureError, match=r"has 2 groups; holding out 2 groups .* at least 3 are needed"):
        hold_out(pool, groups=2, seed=0)
    with pytest.raises(MixtureError, match=r"a fraction of 0.1 \(0 groups\)"):
        hold_out(pool, fraction=0.1, seed=0)
    with pytest.raises(MixtureError, match=r"fraction to hold out is 1\.5"):
        hold_out(pool, fraction=1.5, seed=0)
    for both in ({}, {"groups": 1, "fraction": 0.5}):
        with pytest.raises(MixtureError, match="either groups or fraction"):
            hold_out(pool, seed=0, **both)  # type: ignore[arg-type]


@given(real_pools(grouped=True), SEEDS, st.integers(2, 6))
def test_folds_keep_groups_whole_and_ignore_row_order(pool: Pool, seed: int, k: int) -> None:
    total = len(set(pool.groups.tolist()))
    if total < k:
        with pytest.raises(MixtureError, match=f"has {total} groups; {k} folds need at least {k}"):
            folds(pool, k, seed)
        return
    fold = folds(pool, k, seed)
    assert set(fold.tolist()) == set(range(k))
    assert len(set(zip(pool.groups.tolist(), fold.tolist(), strict=True))) == total
    other = shuffled(pool, 6)
    assert dict(zip(other.ids, folds(other, k, seed), strict=True)) == dict(zip(pool.ids, fold, strict=True))


@given(real_pools(max_size=200), SEEDS, st.integers(2, 6))
def test_folds_of_every_prefix_are_balanced(pool: Pool, seed: int, k: int) -> None:
    assume(pool.n >= k)
    order = order_real(pool, seed)
    fold = folds(pool, k, seed)[order]
    assert set(fold[:k].tolist()) == set(range(k))
    labels, strata = pool.labels[order], pool.strata[order]

    def widest(rows: np.ndarray) -> int:
        standing = np.cumsum((fold[:, None] == np.arange(k)) & rows[:, None], axis=0)
        return int(np.ptp(standing, axis=1).max())

    assert widest(np.ones(pool.n, dtype=bool)) <= 4
    for label in (0, 1):
        assert widest(labels == label) <= 3
        for category in set(strata.tolist()):
            assert widest((labels == label) & (strata == category)) <= 3


@given(pair_pools(min_pairs=6), SEEDS)
def test_folds_along_another_ordering_are_balanced_there(pool: Pool, seed: int) -> None:
    order = order_pairs(pool, seed)
    fold = folds(pool, 3, seed, order=order)
    assert (fold[order[0::2]] == fold[order[1::2]]).all()
    assert set(fold[order[:6]].tolist()) == {0, 1, 2}


def test_bad_numbers_of_folds_are_refused() -> None:
    for k in (1, 0, 2.0, True):
        with pytest.raises(MixtureError, match="folds"):
            folds(Pool(["a", "b"], [0, 1]), k, 0)  # type: ignore[arg-type]
