"""Random pools for the property tests of mixtures."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from guardtrain.mixtures import Pool

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def real_pools(draw: st.DrawFn, max_size: int = 80, grouped: bool = False) -> Pool:
    """A pool with both classes, up to six unequal categories, some of them nameless, rows in random order."""
    n = draw(st.integers(2, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_categories = draw(st.integers(1, 6))
    labels = (rng.random(n) < draw(st.sampled_from([0.05, 0.3, 0.5, 0.9]))).astype(int)
    labels[:2] = [0, 1]
    categories = np.array([None, *"abcde"], dtype=object)[
        rng.choice(n_categories, n, p=rng.dirichlet([1] * n_categories))
    ]
    names = np.array([f"r{i:03d}" for i in range(n)])[rng.permutation(n)]
    groups = names if not grouped else np.array([f"g{g}" for g in rng.integers(0, max(2, n // 2), n)])
    return Pool(names, labels, categories, groups)


@st.composite
def pair_pools(draw: st.DrawFn, min_pairs: int = 1, max_pairs: int = 40) -> Pool:
    """A pool of whole pairs, up to five categories, the halves scattered over the rows."""
    p = draw(st.integers(min_pairs, max_pairs))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_categories = draw(st.integers(1, 5))
    category = rng.choice(n_categories, p, p=rng.dirichlet([1] * n_categories))
    rows = rng.permutation(2 * p)
    pair, label = rows // 2, rows % 2
    names = np.array([f"p{i:03d}" for i in range(p)])
    return Pool(
        [f"{names[i]}-{y}" for i, y in zip(pair, label, strict=True)],
        label,
        [f"c{category[i]}" for i in pair],
        names[pair],
        names[pair],
        name="pairs",
    )


def shuffled(pool: Pool, seed: int) -> Pool:
    """The same records in another row order."""
    return pool.take(np.random.default_rng(seed).permutation(pool.n))
