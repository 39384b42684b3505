from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardtrain.errors import MixtureError
from guardtrain.mixtures import ARMS, CONTROLS, Mixer, Pool, Supply


def pools(real: int, pairs: int | None) -> tuple[Pool, Pool | None]:
    names = [f"p{i // 2}" for i in range(2 * (pairs or 0))]
    ids = [f"{name}-{i % 2}" for i, name in enumerate(names)]
    of_pairs = Pool(ids=ids, labels=np.arange(len(ids)) % 2, groups=names, pair_ids=names) if pairs else None
    return Pool(ids=[f"r{i}" for i in range(real)], labels=np.arange(real) % 2), of_pairs


@given(
    real=st.integers(2, 40),
    pairs=st.none() | st.integers(1, 20),
    mixtures=st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0]), st.sampled_from(ARMS), st.sampled_from(CONTROLS)),
        min_size=1,
        max_size=3,
    ),
    rounding=st.sampled_from(["exact", "nearest"]),
)
def test_the_largest_budget_is_that_of_a_search_through_all_mixtures(
    real: int, pairs: int | None, mixtures: list[tuple[float, str, str]], rounding: str
) -> None:
    mixer = Mixer(*pools(real, pairs))

    def fits(budget: int) -> bool:
        try:
            for ratio, arm, control in mixtures:
                mixer.mix(budget=budget, ratio=ratio, arm=arm, control=control, seed=0, rounding=rounding)
        except MixtureError:
            return False
        return True

    expected = max((budget for budget in range(2, 85) if fits(budget)), default=None)
    supply = Supply.of(mixer.real, mixer.pairs)
    assert supply.largest(mixtures, rounding) == expected


def test_what_is_lacking_is_told_in_the_words_of_the_mixer() -> None:
    mixer = Mixer(*pools(40, 10))
    for ratio, control, budget in ((0.0, "paired", 80), (0.5, "paired", 48), (0.5, "unpaired", 24)):
        with pytest.raises(MixtureError) as caught:
            mixer.mix(budget=budget, ratio=ratio, control=control, seed=0)
        assert mixer.supply.lacks(budget, ratio, "replace", control) == str(caught.value)
        assert not mixer.supply.lacks(16, ratio, "replace", control)
