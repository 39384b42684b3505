"""Orderings of a pool for a seed, of which every prefix is a stratified sample: a budget is then just a length."""

from __future__ import annotations

import heapq
from functools import lru_cache

import numpy as np

from guardtrain.errors import MixtureError
from guardtrain.mixtures.pool import Pool

# One stream of random numbers a purpose, so that drawing for one never shifts the draws of another.
_STREAMS = {"real": 0, "pairs": 1, "hold_out": 2, "folds": 3, "unpaired": 4, "shuffled": 5}


def checked_seed(seed: int) -> int:
    """`seed` as an int; raises MixtureError unless it is a whole number >= 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise MixtureError(f"The seed is {seed!r}; a whole number of at least 0 is needed.")
    return int(seed)


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The generator of `seed` for `purpose`, a key of `_STREAMS`."""
    return np.random.default_rng([checked_seed(seed), _STREAMS[purpose]])


@lru_cache(maxsize=256)
def even_sequence(sizes: tuple[int, ...]) -> np.ndarray:
    """A sequence in which stratum k stands `sizes[k]` times, spread as evenly as can be.

    Among the first t places of n, stratum k of K stands t * sizes[k] / n times, give or take at most
    1 - 1/(2K - 2). This is Tijdeman's solution of the chairman assignment problem (R. Tijdeman, Discrete
    Mathematics 32, 1980): appearance j of stratum k has an earliest and a latest place, and of those
    that may stand at a place the one with the earliest latest place does. Whole-number arithmetic throughout.

    Args:
        sizes: (K,) numbers of at least 1.

    Returns:
        (n,) int64 in [0, K), read-only.

    >>> even_sequence((2, 4)).tolist()
    [1, 0, 1, 1, 0, 1]
    """
    m = np.asarray(sizes, dtype=np.int64)
    n, k = int(m.sum()), len(m)
    if k == 1:
        sequence = np.zeros(n, dtype=np.int64)
    else:
        period = m // np.gcd.reduce(m)  # the sequence repeats itself, so one period is enough
        sequence = np.tile(_one_period(period), n // int(period.sum()))
    sequence.flags.writeable = False
    return sequence


def _one_period(m: np.ndarray) -> np.ndarray:
    n, slack = int(m.sum()), 2 * len(m) - 2
    stratum = np.repeat(np.arange(len(m)), m)
    j = np.arange(n) - np.repeat(np.cumsum(m) - m, m)  # appearance within the stratum
    # Places are t = 1..n, and stratum k's due number there is t * m_k / n. Appearance j comes no sooner than that is
    # j + 1/slack, and no later than the first place at which it is above j + 1 - 1/slack.
    per = slack * m[stratum]
    earliest = -((-(slack * j + 1) * n) // per)
    latest = ((slack * (j + 1) - 1) * n) // per + 1
    by_earliest = np.argsort(earliest, kind="stable")
    arrivals = list(
        zip(earliest[by_earliest].tolist(), latest[by_earliest].tolist(), stratum[by_earliest].tolist(), strict=True)
    )
    sequence = np.empty(n, dtype=np.int64)
    waiting: list[tuple[int, int]] = []
    arrived = 0
    for place in range(1, n + 1):
        while arrived < n and arrivals[arrived][0] <= place:
            heapq.heappush(waiting, arrivals[arrived][1:])
            arrived += 1
        sequence[place - 1] = heapq.heappop(waiting)[1]
    return sequence


def interleave(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random ordering of N items of which every prefix is spread over the strata in proportion.

    `even_sequence` is turned by a random number of places, and the items of a stratum fill its places in random
    order. Turning makes it fair: over seeds, the expected share of a stratum in *every* prefix is exactly its share
    of the whole, so that no category is always or never among the first few.

    Bound: among the first t items, stratum k has t * N_k / N items give or take 2 * (1 - 1/(2K - 2)) < 2 at most
    (1 for two strata, 0 for one).

    Args:
        strata: (N,) whole numbers or strings.

    Returns:
        (N,) int64, a permutation.
    """
    names, code = np.unique(strata, return_inverse=True)
    sizes = np.bincount(code, minlength=len(names))
    # Strata of one size change roles at random, so that the same two categories are not neighbours for every seed.
    role = rng.permutation(len(names))
    role = role[np.argsort(sizes[role], kind="stable")]
    sequence = role[even_sequence(tuple(sizes[role].tolist()))]
    sequence = np.roll(sequence, int(rng.integers(len(sequence))))
    # Both sides grouped by stratum: its places in order, its items at random.
    places = np.argsort(sequence, kind="stable")
    shuffled = rng.permutation(len(code))
    order = np.empty(len(code), dtype=np.int64)
    order[places] = shuffled[np.argsort(code[shuffled], kind="stable")]
    return order


def order_real(pool: Pool, seed: int) -> np.ndarray:
    """All rows of a pool in a random order of which every prefix is stratified by label, then by category.

    Bounds, with q the pool's share of unsafe images, s the number of images of a class within the prefix, and K_c the
    number of categories in that class:

    - among the first t images, the number of unsafe ones (and of safe ones) is off t*q (t*(1-q)) by less than 1;
    - within a class, a category's number is off its proportional share of s by at most
      2 * (1 - 1/(2 K_c - 2)) < 2 (1 for two categories, 0 for one);
    - every prefix of at least two images holds both classes.

    The last one costs a little fairness where classes are very unequal: the rare class then stands among the first two.

    Returns:
        (N,) int64 rows.

    Raises:
        MixtureError: a pool of one class.

    >>> pool = Pool(ids=list("abcdef"), labels=[0, 0, 0, 0, 1, 1])
    >>> int(pool.labels[order_real(pool, seed=0)][:3].sum())
    1
    """
    pool.require_both_classes()
    rng = generator(seed, "real")
    labels, strata = pool.labels[pool.canonical], pool.strata[pool.canonical]
    rare = 0 if pool.class_counts[0] < pool.class_counts[1] else 1
    n, n_rare = pool.n, min(pool.class_counts)
    # The first t hold floor((t * n_rare + phase) / n) of the rare class: within 1 for any phase in [0, n), and at least
    # one of two from n - 2 * n_rare on.
    phase = int(rng.integers(n - 2 * n_rare, n))
    is_rare = np.diff((np.arange(n + 1, dtype=np.int64) * n_rare + phase) // n).astype(bool)
    order = np.empty(n, dtype=np.int64)
    for places, label in ((is_rare, rare), (~is_rare, 1 - rare)):
        members = np.flatnonzero(labels == label)
        order[places] = members[interleave(strata[members], rng)]
    return pool.canonical[order]


def order_pairs(pool: Pool, seed: int) -> np.ndarray:
    """All pairs of a pool in a random order stratified by category, the safe half right before the unsafe one.

    Among the first i pairs, a category is off its proportional share by less than 2 pairs (see `interleave`).
    A pair's category is that of its unsafe half, or of its safe half where that has none.

    Returns:
        (2P,) int64 rows: safe, unsafe, safe, unsafe, ...

    Raises:
        MixtureError: no pairs, a broken pair, or records without a pair id.

    >>> pool = Pool(ids=list("abcd"), labels=[0, 1, 0, 1], pair_ids=list("ppqq"))
    >>> sorted(pool.ids[order_pairs(pool, seed=0)][:2]) in (["a", "b"], ["c", "d"])
    True
    """
    order, _ = _pair_order(pool, seed)
    safe, unsafe = pool.pairs
    return np.stack([safe[order], unsafe[order]], axis=1).reshape(-1)


def order_unpaired(pool: Pool, seed: int) -> np.ndarray:
    """One image of every pair, in an order that mirrors `order_pairs` without ever using both halves of a pair.

    It is made of duos: two images of two different pairs of one category, the first safe, the second unsafe. Duo i
    stands for pair i of `order_pairs`: one of its images is a half of that very pair (which half is random), the other
    the opposite half of a pair that `order_pairs` uses only after half of the category. The two orderings thus
    share their permutation and, at equal length, half of their images (common random numbers: their difference varies
    less). It holds that

    - no two images are of one pair, and every even prefix is half safe, half unsafe;
    - every even prefix has *the same number of images in each category and label* as the prefix of `order_pairs` of
      the same length, as long as no category has used more than half of its pairs; so paired and unpaired
      differ in the pairing alone, and in that unpaired images come from twice as many pairs, each a context of its own.
      A category used up is passed over;
    - within a category, safe and unsafe images differ by at most 1. Only the odd pair left over in a category has no
      partner; these come last, one of each category concerned, labels alternating.

    Returns:
        (P,) int64 rows.

    Raises:
        MixtureError: no pairs, a broken pair, or records without a pair id.
    """
    order, category = _pair_order(pool, seed)
    rng = generator(seed, "unpaired")
    safe, unsafe = pool.pairs
    by_category = np.argsort(category[order], kind="stable")  # places in `order`, grouped by category
    sizes = np.bincount(category, minlength=int(category.max()) + 1)
    starts = np.cumsum(sizes) - sizes
    nth = np.empty(len(order), dtype=np.int64)  # the pair at a place is the nth of its category
    nth[by_category] = np.arange(len(order)) - np.repeat(starts, sizes)
    size = sizes[category[order]]

    near = np.flatnonzero(2 * nth + 1 < size)
    # Counted from the end of its category, so that the partners of early duos are the pairs used last.
    far = by_category[starts[category[order[near]]] + size[near] - 1 - nth[near]]
    near_is_safe = rng.random(len(near)) < 0.5
    duos = np.stack(
        [
            safe[order[np.where(near_is_safe, near, far)]],
            unsafe[order[np.where(near_is_safe, far, near)]],
        ],
        axis=1,
    ).reshape(-1)

    odd = order[2 * nth + 1 == size]
    first_safe = rng.random() < 0.5
    is_safe = (np.arange(len(odd)) % 2 == 0) == first_safe
    return np.concatenate([duos, np.where(is_safe, safe[odd], unsafe[odd])])


def shuffled_partners(category: np.ndarray, seed: int, apart: np.ndarray | None = None) -> np.ndarray:
    """For each of P pairs the pair whose safe half its unsafe half is given, at random, of its category if it can be.

    No pair keeps its own: within a category partners go round in a random circle. Pairs that are alone in their
    category make a circle among themselves.

    Args:
        category: (P,) whole numbers or strings.
        seed: of the draw.
        apart: (P,) whole numbers; pairs whose numbers differ, those of two folds, exchange nothing.

    Returns:
        (P,) int64, a permutation, without fixed points but for a pair that has nobody to exchange with.

    >>> partners = shuffled_partners(np.array([0, 0, 1, 1, 2, 3]), seed=0)
    >>> sorted(partners.tolist()), bool((partners == np.arange(6)).any())
    ([0, 1, 2, 3, 4, 5], False)
    """
    rng = generator(seed, "shuffled")
    _, kind = np.unique(category, return_inverse=True)
    fold = np.zeros_like(kind) if apart is None else np.unique(apart, return_inverse=True)[1]
    _, inverse, sizes = np.unique(np.stack([fold, kind]), axis=1, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    circle = np.where(sizes[inverse] > 1, inverse, -1 - fold)
    partners = np.arange(len(inverse), dtype=np.int64)
    for value in np.unique(circle):
        members = rng.permutation(np.flatnonzero(circle == value))
        partners[members] = np.roll(members, 1)
    return partners


def _pair_order(pool: Pool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a pool in the order of `seed`, (P,) int64, and the category of pair p as a number, (P,)."""
    pool.require_all_paired()
    safe, unsafe = pool.pairs
    strata = np.where(pool.strata[unsafe] == "", pool.strata[safe], pool.strata[unsafe])
    _, category = np.unique(strata, return_inverse=True)
    return interleave(category, generator(seed, "pairs")), category
