"""Areas, budgets and multipliers on curves whose answers are known, and what lies beyond the measured range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from guardtrain.curves.bootstrap import POINT_COLUMNS, PointReplicates
from guardtrain.curves.efficiency import (
    Estimate,
    LineReplicates,
    area,
    area_difference,
    budget_needed,
    data_multiplier,
    isotonic,
    pair_worth,
)
from guardtrain.curves.statistics import Line
from guardtrain.errors import DataError

BUDGETS = 2.0 ** np.arange(4, 12)


def power(n: Any) -> Any:
    return 0.95 - 1.2 * np.asarray(n, float) ** -0.4


def line(
    metric: Callable[[Any], Any] = power,
    budgets: Any = BUDGETS,
    noise: float = 0.0,
    replicates: int = 40,
    share: float = 0.0,
    seed: int = 0,
    **more: Any,
) -> LineReplicates:
    """A line with `share` of its images in pairs; noise moves whole replicates and single points."""
    budgets = np.asarray(budgets, float)
    rng = np.random.default_rng(seed)
    mean = np.asarray(metric(budgets), float)
    drawn = mean[:, None] + noise * rng.normal(size=(len(budgets), replicates))
    return LineReplicates(budgets, budgets, budgets * (1 - share), budgets * share / 2, mean, drawn, **more)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.7]) | st.floats(-1, 1), min_size=8, max_size=8), max_size=4))
def test_isotonic_is_scikit_learns(columns: list[list[float]]) -> None:
    values = np.array(columns).reshape(-1, 8).T
    for increasing in (True, False):
        fit = isotonic(values, increasing)
        reference = IsotonicRegression(increasing=increasing)
        for ours, column in zip(fit.T, values.T, strict=True):
            np.testing.assert_allclose(ours, reference.fit_transform(np.arange(8), column), atol=1e-12)
            assert (np.diff(ours) * (1 if increasing else -1) >= 0).all()


def test_pooled_budgets_are_equal_to_the_last_bit() -> None:
    """An inverse would find a slope in rounding."""
    values = np.random.default_rng(0).integers(0, 5, (8, 500)) / 10  # equal means of unequal sums
    fit = isotonic(values)
    for ours, column in zip(fit.T, values.T, strict=True):
        pooled = IsotonicRegression().fit_transform(np.arange(8), column).round(10)
        assert len(np.unique(ours)) == len(np.unique(pooled))


def test_isotonic_of_undefined_and_of_a_flat_line() -> None:
    fit = isotonic(np.array([[0.5, 0.1], [0.5, np.nan], [0.5, 0.3]]))
    np.testing.assert_array_equal(fit, [[0.5, np.nan]] * 3)


def test_area_is_the_mean_height_over_log_budgets() -> None:
    assert area(line(lambda n: 0 * n + 0.7)).value == pytest.approx(0.7)
    assert area(line(lambda n: np.log2(n) / 10)).value == pytest.approx((4 + 11) / 2 / 10)
    uneven = line(lambda n: np.log2(n) / 10, budgets=[16, 32, 256, 2048])
    assert area(uneven).value == pytest.approx((4 + 11) / 2 / 10)
    noisy = area(line(noise=0.01, replicates=2000))
    assert noisy.low < noisy.value < noisy.high
    # Variance of the trapezoid rule with seven equal steps: inner points weigh 1/7, the two ends half as much.
    assert noisy.high - noisy.low == pytest.approx(2 * 1.96 * 0.01 * np.sqrt(6 + 0.5) / 7, rel=0.08)
    with pytest.raises(DataError, match="two budgets"):
        area(line(budgets=[16]))


def test_areas_differ_replicate_by_replicate() -> None:
    a, b = line(noise=0.05), line(lambda n: power(n) - 0.1, noise=0.05)  # the same noise on both
    got = area_difference(a, b)
    np.testing.assert_allclose((got.value, got.low, got.high), 0.1)
    # of lines that are not as long, over the budgets that both have
    whole, short = line(), line(lambda n: 0.9 * power(n), budgets=BUDGETS[:-1])
    expected = area(line(budgets=BUDGETS[:-1])).value - area(short).value
    np.testing.assert_allclose(area_difference(whole, short).value, expected)
    np.testing.assert_allclose(area_difference(short, whole).value, -expected)
    assert area_difference(whole, line(budgets=BUDGETS * 5)).text() == "–", "none in common"


def test_budget_needed_on_a_power_law() -> None:
    for n in (16, 50, 300, 2048):
        got = budget_needed(line(), float(power(n)))
        assert got.value == pytest.approx(n, rel=0.06)
        assert (got.below, got.above) == (0, 0)
    assert budget_needed(line(), float(power(128))).value == pytest.approx(128)


def test_budget_needed_is_censored_at_both_ends() -> None:
    never, always = budget_needed(line(), 0.99), budget_needed(line(), 0.1)
    assert (never.value, never.text(0), never.above) == (np.inf, "≥ 2,048", 1.0)
    assert (always.value, always.text(0), always.below) == (-np.inf, "≤ 16", 1.0)
    some = budget_needed(line(noise=0.01, replicates=400), float(power(1900)))
    assert np.isfinite(some.value)
    assert some.high == np.inf
    assert 0.1 < some.above < 0.9
    assert some.text(0).endswith("≥ 2,048]")


def test_budget_needed_takes_the_start_of_a_plateau_and_mends_dips() -> None:
    plateau = line(lambda n: np.array([0.1, 0.2, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8]))
    assert budget_needed(plateau, 0.5).value == pytest.approx(64)
    dip = line(lambda n: np.array([0.1, 0.2, 0.6, 0.4, 0.6, 0.7, 0.8, 0.9]))  # monotone: .5 .5 at 64 and 128
    assert budget_needed(dip, 0.5).value == pytest.approx(64)
    assert budget_needed(dip, 0.55).value == pytest.approx(128 * 2**0.5)


def test_a_metric_of_which_less_is_better() -> None:
    real = line(lambda n: 1 - power(n), increasing=False)
    arm = line(lambda n: 1 - power(3 * n), increasing=False)
    assert budget_needed(real, float(1 - power(128))).value == pytest.approx(128)
    assert data_multiplier(real, arm)[2].value == pytest.approx(3, rel=0.05)
    assert budget_needed(real, 0.0).text(0) == "≥ 2,048"


def test_multiplier_of_a_line_shifted_by_three() -> None:
    got = data_multiplier(line(), line(lambda n: power(3 * n), share=0.5))
    for estimate, n in zip(got, BUDGETS, strict=True):
        if 3 * n <= 2048:
            assert estimate.value == pytest.approx(3, rel=0.05)
            assert estimate.low == pytest.approx(estimate.high)
        else:
            assert estimate.text() == f"≥ {2048 / n:.2f}"
    exact = data_multiplier(line(), line(lambda n: power(4 * n)))
    np.testing.assert_allclose([e.value for e in exact[:6]], 4)  # at measured budgets nothing is interpolated


def test_multiplier_counts_the_images_that_the_add_arm_put_on_top() -> None:
    plain = line(lambda n: power(3 * n))
    added = LineReplicates(
        BUDGETS, 1.5 * BUDGETS, BUDGETS, BUDGETS / 4, plain.mean, plain.replicates
    )  # half as many pair images on top
    assert data_multiplier(line(), added)[1].value == pytest.approx(2, rel=0.05)
    assert pair_worth(line(), added)[1].value == pytest.approx(8, rel=0.1)  # (3n - n) / (n / 4)
    assert budget_needed(added, float(power(3 * 64))).value == pytest.approx(96)


def test_multiplier_interval_is_censored_where_replicates_are() -> None:
    real = line(noise=0.01, replicates=500)
    arm = line(lambda n: power(3 * n), noise=0.01, replicates=500, seed=1)
    got = data_multiplier(real, arm)[5]  # 3 × 512 is near the end of the real-only line
    assert got.value == pytest.approx(3, rel=0.05)
    assert got.low < 3
    assert got.high == np.inf
    assert got.text(1).endswith("≥ 4.0]")
    assert 0.025 < got.above < 0.5
    worse = data_multiplier(line(), line(lambda n: power(n / 2)))
    assert worse[0].text() == "≤ 1.00"
    assert worse[1].value == pytest.approx(0.5)
    assert (worse[0].at_least, worse[0].at_most) == (-np.inf, 1)
    beyond = data_multiplier(line(), line(lambda n: power(3 * n)))[7]
    assert (beyond.low, beyond.at_least, beyond.at_most) == (np.inf, 1, np.inf), "at least 1 is all one may claim"


def test_a_line_against_itself_is_worth_one() -> None:
    bumpy = line(lambda n: np.array([0.1, 0.3, 0.2, 0.2, 0.5, 0.45, 0.6, 0.7]))
    values = np.array([e.value for e in data_multiplier(bumpy, bumpy)])
    assert np.exp(np.log(values).mean()) == pytest.approx(1)
    np.testing.assert_allclose(values[[0, 6, 7]], 1)
    np.testing.assert_allclose([e.value for e in data_multiplier(line(), line())], 1)


def test_what_a_pair_is_worth() -> None:
    arm = line(lambda n: power(4 * n), share=0.5)
    got = pair_worth(line(), arm)
    np.testing.assert_allclose([e.value for e in got[:6]], (4 - 0.5) / 0.25)  # (4n - n/2) / (n/4)
    assert got[6].text(1) == "≥ 6.0"  # (2048 - 512) / 256
    nothing = pair_worth(line(), line())
    assert all(np.isnan(e.value) and e.text() == "–" for e in nothing)


def test_undefined_replicates_are_left_out_and_counted() -> None:
    made = line(noise=0.001)
    made.replicates[0, :10] = np.nan
    assert budget_needed(made, float(power(128))).undefined == pytest.approx(0.25)
    assert area(made).undefined == pytest.approx(0.25)
    multiplier = data_multiplier(line(), made)[7]
    assert multiplier.undefined == pytest.approx(0.25)
    assert multiplier.high == np.inf
    made.replicates[:] = np.nan
    gone = area(made)
    assert np.isnan(gone.low) and gone.undefined == 1


def test_estimates_as_text() -> None:
    assert Estimate(1.5, -1234.5, np.inf, floor=-2, ceiling=30).text(1) == "1.5 [−1,234.5, ≥ 30.0]"
    assert Estimate(1.5, -np.inf, 2, floor=-2, ceiling=30).text(0) == "2 [≤ −2, 2]"
    assert Estimate(np.inf, 3, np.inf, ceiling=4).text(1) == "≥ 4.0 [3.0, ≥ 4.0]"


def test_unfit_lines_are_refused() -> None:
    with pytest.raises(DataError, match="positive and ascend"):
        line(budgets=[32, 16])
    with pytest.raises(DataError, match="8 budgets"):
        LineReplicates(BUDGETS, BUDGETS, BUDGETS, BUDGETS, np.zeros(3), np.zeros((8, 2)))
    with pytest.raises(DataError, match="one bootstrap"):
        data_multiplier(line(), line(replicates=7))


def test_lines_are_taken_from_a_bootstrap() -> None:
    rows = [
        ("linear", arm, control, ratio, budget, real, images - real, images, 4, level)
        for arm, control, ratio, budget, real, images, level in (
            ("replace", "none", 0.0, 64, 64, 64, 0.7),
            ("replace", "none", 0.0, 16, 16, 16, 0.6),
            ("add", "paired", 0.5, 16, 16, 24, 0.65),
            ("add", "paired", 1.0, 16, 16, 32, 0.7),
        )
    ]
    names = [*POINT_COLUMNS, "n_real", "n_pair_images", "n_images", "n_seeds", "mean"]
    points = pd.DataFrame(rows, columns=names)
    boot = PointReplicates(points, np.arange(8.0).reshape(4, 2), "pairs", "brier", 0.9, np.zeros((4, 1, 1)))
    real = LineReplicates.of(boot, Line("add", "none", 0.0))  # real data alone has no arm
    assert real.budgets.tolist() == [16, 64]
    assert real.replicates.tolist() == [[2, 3], [0, 1]]
    assert (real.increasing, real.confidence) == (False, 0.9)
    added = LineReplicates.of(boot, Line("add", "paired", 0.5))
    assert (added.n_images[0], added.n_real[0], added.n_pairs[0]) == (24, 16, 4)
    for missing in (Line("replace", "paired", 0.5), Line("add", "paired", None)):
        with pytest.raises(DataError, match="no points of"):
            LineReplicates.of(boot, missing)
    two = PointReplicates(
        points.assign(head=["a", "b", "a", "b"]), boot.replicates, "pairs", "auroc", 0.9, boot.by_seed
    )
    with pytest.raises(DataError, match=r"several heads \(a, b\): name one"):
        LineReplicates.of(two, Line("replace", "none", 0.0))
    assert LineReplicates.of(two, Line("replace", "none", 0.0), head="b").budgets.tolist() == [16]
