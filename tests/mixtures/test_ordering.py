from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import MixtureError
from guardtrain.mixtures import Pool, order_pairs, order_real, order_unpaired, shuffled_partners
from guardtrain.mixtures.ordering import even_sequence, interleave

from .strategies import SEEDS, pair_pools, real_pools, shuffled


def _deviation(codes: np.ndarray) -> np.ndarray:
    """(n, K): how far each value's number in each prefix is from its proportional share."""
    names, inverse = np.unique(codes, return_inverse=True)
    standing = np.cumsum(inverse[:, None] == np.arange(len(names)), axis=0)
    share = np.bincount(inverse) / len(codes)
    return np.asarray(np.abs(standing - np.arange(1, len(codes) + 1)[:, None] * share))


def _tijdeman(k: int) -> float:
    return 0.0 if k == 1 else 1 - 1 / (2 * k - 2)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_even_sequence_keeps_tijdemans_bound(sizes: list[int]) -> None:
    sequence = even_sequence(tuple(sizes))
    assert np.bincount(sequence, minlength=len(sizes)).tolist() == sizes
    assert _deviation(sequence).max() <= _tijdeman(len(sizes)) + 1e-9


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), SEEDS)
def test_interleave_is_a_permutation_within_its_bound(sizes: list[int], seed: int) -> None:
    strata = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = interleave(strata, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(strata)))
    assert _deviation(strata[order]).max() <= 2 * _tijdeman(len(sizes)) + 1e-9


def test_interleave_is_fair_at_every_length() -> None:
    strata = np.repeat([0, 1, 2], [12, 5, 3])
    first = np.zeros((20, 20))
    for seed in range(4000):
        order = interleave(strata, np.random.default_rng(seed))
        first[np.arange(20), order] += 1
    # Each item stands at each place equally often: 200 times, standard deviation 13.8.
    assert np.abs(first - 200).max() < 5 * 13.8


@given(real_pools(), SEEDS)
def test_order_real_prefixes_are_stratified(pool: Pool, seed: int) -> None:
    order = order_real(pool, seed)
    assert sorted(order.tolist()) == list(range(pool.n))
    labels = pool.labels[order]
    assert _deviation(labels).max() < 1
    assert set(labels[:2].tolist()) == {0, 1}
    for label in (0, 1):
        strata = pool.strata[order][labels == label]
        assert _deviation(strata).max() <= 2 * _tijdeman(len(set(strata.tolist()))) + 1e-9


@given(pair_pools(), SEEDS)
def test_order_pairs_keeps_halves_together_and_categories_even(pool: Pool, seed: int) -> None:
    order = order_pairs(pool, seed)
    assert sorted(order.tolist()) == list(range(pool.n))
    assert (pool.pair_ids[order[0::2]] == pool.pair_ids[order[1::2]]).all()
    assert (pool.labels[order[0::2]] == 0).all() and (pool.labels[order[1::2]] == 1).all()
    assert _deviation(pool.strata[order[0::2]]).max() < 2


@given(pair_pools(), SEEDS)
def test_order_unpaired_has_one_of_each_pair_and_balanced_labels(pool: Pool, seed: int) -> None:
    order = order_unpaired(pool, seed)
    assert sorted(pool.pair_ids[order].tolist()) == sorted(set(pool.pair_ids.tolist()))
    signs = 2 * pool.labels[order].astype(int) - 1
    assert (np.cumsum(signs)[1::2] == 0).all()
    for category in set(pool.strata.tolist()):
        standing = np.cumsum(signs * (pool.strata[order] == category))
        assert np.abs(standing).max() <= 1


def _cells(pool: Pool, rows: np.ndarray) -> Counter[tuple[str, int]]:
    return Counter(zip(pool.strata[rows].tolist(), pool.labels[rows].tolist(), strict=True))


@given(pair_pools(min_pairs=4), SEEDS)
def test_unpaired_has_the_composition_of_paired_until_a_category_is_half_used(pool: Pool, seed: int) -> None:
    paired, unpaired = order_pairs(pool, seed), order_unpaired(pool, seed)
    half = {c: n // 4 for c, n in Counter(pool.strata.tolist()).items()}  # duos a category can make
    for length in range(2, pool.n_pairs + 1, 2):
        composition = _cells(pool, paired[:length])
        if any(composition[c, 0] > half[c] for c in half):
            break
        assert _cells(pool, unpaired[:length]) == composition
        shared = set(paired[:length].tolist()) & set(unpaired[:length].tolist())
        assert len(shared) >= length // 2


@given(pair_pools(min_pairs=2), SEEDS)
def test_order_unpaired_spreads_its_categories(pool: Pool, seed: int) -> None:
    order = order_unpaired(pool, seed)
    sizes = Counter(pool.strata[order].tolist())
    n_duos = sum(size // 2 for size in sizes.values())
    duos = pool.strata[order[: 2 * n_duos : 2]]
    for category, size in sizes.items():
        share = size / pool.n_pairs
        due = share * np.arange(1, n_duos + 1)
        assert np.abs(np.cumsum(duos == category) - due).max(initial=0) < 2 + 2 * share * max(len(sizes) - 2, 0) + 1e-9


def test_unpaired_labels_are_not_tied_to_categories() -> None:
    # With as many categories as the labels' period, alternating labels over the pair order would confound the two.
    names = [f"p{i:02d}" for i in range(40) for _ in (0, 1)]
    pool = Pool(
        [f"{n}-{i % 2}" for i, n in enumerate(names)], [0, 1] * 40, ["ab"[i // 2 % 2] for i in range(80)], names, names
    )
    for seed in range(5):
        assert set(_cells(pool, order_unpaired(pool, seed)[:20]).values()) == {5}


@pytest.mark.parametrize("order", [order_real, order_pairs, order_unpaired])
@settings(max_examples=30)
@given(pool=pair_pools(min_pairs=8), seed=SEEDS)
def test_orderings_depend_on_ids_and_seed_alone(order, pool: Pool, seed: int) -> None:  # type: ignore[no-untyped-def]
    other = shuffled(pool, 1)
    ids = pool.ids[order(pool, seed)].tolist()
    assert ids == other.ids[order(other, seed)].tolist()
    assert ids == pool.ids[order(pool, seed)].tolist()
    assert any(ids != pool.ids[order(pool, s)].tolist() for s in (seed + 1, seed + 2, seed + 3))


def test_a_pairs_category_is_that_of_its_unsafe_half() -> None:
    names = [f"p{i:02d}" for i in range(20) for _ in (0, 1)]
    strata = [None if i % 2 == 0 else "ab"[i // 20] for i in range(40)]
    pool = Pool([f"{n}-{i % 2}" for i, n in enumerate(names)], [0, 1] * 20, strata, names, names)
    assert _deviation(pool.strata[order_pairs(pool, 3)[1::2]]).max() <= 1


def test_refusals_give_numbers() -> None:
    safe_only = Pool(["a", "b"], [0, 0])
    with pytest.raises(MixtureError, match="2 safe and 0 unsafe"):
        order_real(safe_only, 0)
    with_single = Pool(list("abc"), [0, 1, 1], pair_ids=["p", "p", None], name="pairs")
    for order in (order_pairs, order_unpaired):
        with pytest.raises(MixtureError, match="1 of 3 records of the pairs pool have no pair_id: c"):
            order(with_single, 0)
    for seed in (-1, 0.5, True):
        with pytest.raises(MixtureError, match="seed"):
            order_real(Pool(["a", "b"], [0, 1]), seed)  # type: ignore[arg-type]


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    st.lists(st.integers(0, 2), min_size=40, max_size=40),
    SEEDS,
)
def test_shuffled_partners_go_round_within_their_category(categories: list[str], folds: list[int], seed: int) -> None:
    category, fold = np.array(categories), np.array(folds[: len(categories)])
    partners = shuffled_partners(category, seed, fold)
    assert sorted(partners.tolist()) == list(range(len(category)))
    assert fold[partners].tolist() == fold.tolist()
    shared = Counter(zip(category.tolist(), fold.tolist(), strict=True))
    alone = Counter(f for (_, f), count in shared.items() if count == 1)
    for own, other in enumerate(partners.tolist()):
        if shared[category[own], fold[own]] > 1:
            assert other != own and category[other] == category[own]
        else:
            assert (other != own) == (alone[fold[own]] > 1)


def test_shuffled_partners_are_drawn_at_random() -> None:
    drawn = {tuple(shuffled_partners(np.zeros(4), seed).tolist()) for seed in range(200)}
    assert len(drawn) == 6, "the six circles of four"
