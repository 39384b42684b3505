from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binomtest

from guardtrain.errors import DataError
from guardtrain.guards.thresholds_rates import Rate, clopper_pearson, effective_number


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_scipys(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    rate = Rate.measured(k, n, confidence=confidence)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert rate.low <= rate.value <= rate.high
    one_sided = binomtest(k, n, alternative="less").proportion_ci(confidence, method="exact")
    assert rate.bound(True, confidence) == pytest.approx(one_sided.high, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.integers(1, 200))
def test_the_rate_elsewhere_is_beta_binomial(n: int, share: float, size: int) -> None:
    k = round(share * n)
    low, high = Rate.measured(k, n).expected(size)
    below = betabinom.ppf(0.025, size, k, n - k + 1) if k else 0
    above = betabinom.ppf(0.975, size, k + 1, n - k) if k < n else size
    assert (low, high) == pytest.approx((below / size, above / size), abs=1e-12)
    rate = Rate.measured(k, n)
    assert low <= rate.high and high >= rate.low


def test_on_very_many_images_the_rate_elsewhere_is_the_populations() -> None:
    rate = Rate.measured(7, 120)
    assert rate.expected(200_000) == pytest.approx((rate.low, rate.high), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50))
def test_the_complement_and_json(k: int, others: int) -> None:
    rate = Rate.measured(k, k + others)
    assert rate.complement().complement() == pytest.approx(rate) or rate.complement().count == others
    assert rate.complement().low == pytest.approx(1 - rate.high)
    assert Rate.from_dict(json.loads(json.dumps(rate.to_dict(), allow_nan=False))) == rate


def test_no_images_promise_nothing() -> None:
    rate = Rate.measured(0, 0)
    assert np.isnan(rate.value) and (rate.low, rate.high) == (0, 1) and rate.expected(10) == (0, 1)
    with pytest.raises(DataError, match="1 image or more"):
        rate.expected(0)


def test_copies_count_once() -> None:
    """Every image three times has the interval of the images alone."""
    assert effective_number(np.repeat(np.arange(40), 3)) == pytest.approx(40)
    assert effective_number(np.arange(40)) == 40 and effective_number(np.zeros(0, dtype=int)) == 0
    tripled = clopper_pearson(6, 6, 120, 40.0)
    assert tripled == pytest.approx(clopper_pearson(2, 2, 40))
    once, thrice = Rate.measured(2, 40), Rate.measured(6, 120, effective=40.0)
    assert thrice.expected(60) == pytest.approx(once.expected(20))
    uneven = np.repeat([0, 1, 2], [8, 1, 1])
    assert 1 < effective_number(uneven) < 2  # the large one is nearly all there is
