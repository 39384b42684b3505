"""Power laws that are known come back, intervals cover, and what the budgets cannot hold is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from sklearn.isotonic import IsotonicRegression

from guardtrain.curves.bootstrap import over_seeds, seed_draws
from guardtrain.curves.efficiency import LineReplicates
from guardtrain.curves.extrapolation import REACH, extrapolate, fit_power_law, held_out, part_of, refusal
from guardtrain.errors import DataError

N = 2.0 ** np.arange(4, 12)


def law(n: Any, a: float, b: float, c: float) -> Any:
    return a + b * np.asarray(n, float) ** -c


def line(
    mean: Any, noise: float = 0.002, replicates: int = 200, n: Any = N, seed: int = 0, **more: Any
) -> LineReplicates:
    n, mean = np.asarray(n, float), np.asarray(mean, float)
    drawn = mean[:, None] + noise * np.random.default_rng(seed).normal(size=(len(n), replicates))
    return LineReplicates(n, n, n, 0 * n, mean, drawn, **more)


def seeds_line(a: float, b: float, c: float, rng: np.random.Generator, seeds: int = 10) -> LineReplicates:
    """Seeds that share part of their deviation over budgets, resampled as the bootstrap does it."""
    spread = 0.02 * (N / N[0]) ** -0.35
    common, own = rng.normal(size=(1, seeds)), rng.normal(size=(len(N), seeds))
    values = 1 - law(N, a, b, c)[:, None] + spread[:, None] * (common + own) / np.sqrt(2)
    draws = seed_draws(seeds, 200, rng)
    drawn = [over_seeds(np.broadcast_to(row[:, None], (seeds, 200)), row, draws) for row in values]
    return LineReplicates(N, N, N, 0 * N, values.mean(axis=1), np.stack(drawn))


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 0.3), st.floats(0.2, 2), st.floats(0.1, 1.5), st.integers(4, 9))
def test_parameters_come_back(a: float, b: float, c: float, k: int) -> None:
    n = N[:k] if k <= 8 else np.append(N, 5000.0)
    got = fit_power_law(n, law(n, a, b, c)[:, None])
    assert got.error(8 * n[-1])[0] == pytest.approx(law(8 * n[-1], a, b, c), abs=1e-5)
    assert got.exponent[0] == pytest.approx(c, rel=1e-3)
    assert got.images(float(law(4000, a, b, c)))[0] == pytest.approx(4000, rel=1e-2)


def test_fits_are_scipys() -> None:
    rng = np.random.default_rng(0)
    sigma = 0.03 * (N / N[0]) ** -0.4
    for trial in range(12):
        y = law(N, 0.05 * (trial % 3), 0.8, 0.3 + 0.1 * (trial % 4)) + sigma * rng.normal(size=8)
        got = fit_power_law(N, y[:, None], 1 / sigma**2)
        ours = np.array([got.plateau[0], got.scale[0], got.exponent[0]])
        bounds = ([0, 0, 0.02], [1, 50, 4.0])
        starts = [(0.05, 0.8, 0.4), (0.0, 0.5, 0.2), (0.1, 2.0, 0.8)]
        fits = [curve_fit(law, N, y, start, sigma=sigma, bounds=bounds, max_nfev=20_000)[0] for start in starts]
        left = [float(np.square((y - law(N, *fit)) / sigma).sum()) for fit in (*fits, ours)]
        assert left[-1] <= min(left[:-1]) * (1 + 1e-6)
        best = fits[int(np.argmin(left[:-1]))]
        assert got.error(8000)[0] == pytest.approx(law(8000, *best), abs=1e-3)


def test_columns_are_fitted_apart_and_undefined_ones_not_at_all() -> None:
    y = np.column_stack([law(N, 0.1, 1, 0.5), law(N, 0, 0.5, 0.2), np.full(8, np.nan), np.full(8, 0.3)])
    together = fit_power_law(N, y)
    for k in range(4):
        alone = fit_power_law(N, y[:, [k]])
        np.testing.assert_allclose(together.error(4000)[k], alone.error(4000)[0], equal_nan=True)
    assert np.isnan(together.exponent).tolist() == [False, False, True, False]
    assert together.error(1e6)[3] == pytest.approx(0.3)
    assert together.images(0.2)[3] == np.inf
    free = fit_power_law(N, law(N, -0.2, 1.5, 0.2)[:, None], bounded=False)
    assert free.plateau[0] == pytest.approx(-0.2, abs=1e-4)
    assert fit_power_law(N, law(N, -0.2, 1.5, 0.2)[:, None]).plateau[0] == 0


@pytest.mark.apart
def test_intervals_cover() -> None:
    """With ten seeds 95 to 96 % over 300 repetitions of four power laws; here fewer, of one on the boundary too."""
    rng = np.random.default_rng(1)
    for a, b, c in ((0.05, 0.6, 0.4), (0.0, 0.5, 0.3)):
        truth = float(1 - law(4 * N[-1], a, b, c))
        metric, budget = [], []
        for _ in range(60):
            made = seeds_line(a, b, c, rng)
            got = extrapolate(made, n=4 * N[-1], check=0).estimate
            metric.append(got.low <= truth <= got.high)
            images = extrapolate(made, target=truth, check=0).estimate
            budget.append(images.low <= 4 * N[-1] <= images.high)
        assert np.mean(metric) >= 0.88
        assert np.mean(budget) >= 0.88


def test_a_prediction_with_its_interval() -> None:
    made = line(1 - law(N, 0.05, 0.6, 0.4))
    got = extrapolate(made, n=8000)
    truth = float(1 - law(8000, 0.05, 0.6, 0.4))
    assert got.estimate.value == pytest.approx(truth, abs=1e-4)
    assert got.estimate.low < truth < got.estimate.high
    assert got.plateau == pytest.approx(0.95, abs=1e-3)
    assert got.exponent is not None
    assert got.exponent.low < 0.4 < got.exponent.high
    assert got.measured == (16, 2048)
    images = extrapolate(made, target=truth)
    assert images.estimate.value == pytest.approx(8000, rel=0.01)
    assert images.estimate.low < 8000 < images.estimate.high
    for made_text in (got.text(), images.text(), extrapolate(made, n=8000, method="isotonic").text()):
        assert "extrapolated from 16–2,048 images" in made_text
    assert got.text().startswith(f"{truth:.3f} [")


def test_less_is_better_for_brier() -> None:
    made = line(law(N, 0.04, 0.5, 0.5), increasing=False)
    got = extrapolate(made, n=8000)
    assert got.estimate.value == pytest.approx(float(law(8000, 0.04, 0.5, 0.5)), abs=1e-4)
    assert extrapolate(made, target=0.047).estimate.value == pytest.approx((0.5 / 0.007) ** 2, rel=0.01)
    assert np.isposinf(extrapolate(made, target=0.03).estimate.value)


def test_beyond_the_plateau_and_the_reach_there_is_a_bound_only() -> None:
    made = line(1 - law(N, 0.05, 0.6, 0.8), noise=0.001)
    short = extrapolate(made, target=0.97)
    assert np.isposinf(short.estimate.value)
    assert short.estimate.ceiling == REACH * 2048
    assert "levels off at 0.950, short of the target" in short.text()
    assert short.text().startswith("≥ 32,768 (extrapolated")
    far = extrapolate(made, n=REACH * 2048 + 1)
    assert "more than 16 times the largest measured" in far.refused
    assert np.isnan(far.estimate.value)
    assert "no number of images reaches 1" in extrapolate(made, target=1.0).refused
    slow = 1 - law(N, 0.0, 0.6, 0.3)
    late = extrapolate(line(slow, noise=0.001), target=float(1 - law(100 * 2048, 0.0, 0.6, 0.3)))
    assert late.estimate.text(0) == "≥ 32,768"
    near = extrapolate(made, target=float(made.mean[-1]) + 1e-4)
    assert np.isneginf(near.estimate.low)  # some replicates were there with what was measured
    assert near.estimate.floor == 2048
    assert "≤ 2,048" in near.text()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (line(1 - law(N[:4], 0, 1, 0.5), n=N[:4]), "4 budgets, and 5 are needed"),
        (line(1 - law(N[:5] ** 0.5, 0, 1, 0.5), n=N[:5] ** 0.5), "4 times the smallest, and 8"),
        (line([0.6, 0.7, 0.8, 0.85, 0.6, 0.9, 0.91, 0.92]), "not monotone: out of order by 0.150 at 256 images"),
        (line(np.full(8, 0.8), noise=0.01), "does not rise by more than its error bars"),
        (line(0.9 - 0.001 * np.arange(8), noise=0.01), "does not rise"),
        (line(0.5 + 0.03 * np.arange(8), noise=0.004), "so flat that it is a logarithm"),
        (line([0.5, *[0.9] * 7], noise=0.001), "so steep that it is a step"),
    ],
)
def test_what_the_budgets_cannot_hold_is_refused(made: LineReplicates, reason: str) -> None:
    got = extrapolate(made, n=2 * made.n_images[-1])
    assert reason in got.refused
    assert np.isnan(got.estimate.value)
    assert got.text().startswith("– (not extrapolated")
    if "logarithm" not in reason and "step" not in reason:
        assert refusal(made) == got.refused


def test_a_number_that_its_own_interval_leaves_out_is_refused() -> None:
    """The bootstrap's draws bend the other way: they rise later, and so need fewer images."""
    rising = 1 - law(N, 0.05, 0.6, 0.8)
    bent = LineReplicates(N, N, N, 0 * N, rising, line(1 - law(N, 0.01, 0.6, 0.4), noise=0.001).replicates)
    for asked in ({"target": 0.9495}, {"n": 8192}):
        got = extrapolate(bent, **asked)
        assert "its own interval leaves the number out" in got.refused and np.isnan(got.estimate.value), asked


def test_what_was_measured_is_not_extrapolated() -> None:
    made = line(1 - law(N, 0.05, 0.6, 0.4))
    with pytest.raises(DataError, match="reached by 128 measured images"):
        extrapolate(made, target=float(made.mean[3]) - 1e-6)
    with pytest.raises(DataError, match="no more than the 2,048 measured"):
        extrapolate(made, n=2048)
    with pytest.raises(DataError, match="either a target or a number"):
        extrapolate(made)
    with pytest.raises(DataError, match="there are: power law, isotonic"):
        extrapolate(made, n=4000, method="line")
    with pytest.raises(DataError, match="is no share"):
        extrapolate(line(np.arange(8.0)), n=4000)
    with pytest.raises(DataError, match="cannot be held out"):
        held_out(made, 8)


@pytest.mark.parametrize("increasing", [True, False])
def test_the_isotonic_level_is_scikit_learns(increasing: bool) -> None:
    made = line(1 - law(N, 0.05, 0.6, 0.4), noise=0.03, replicates=50, increasing=increasing)
    got = extrapolate(made, n=9000, method="isotonic").estimate
    reference = IsotonicRegression(increasing=increasing, out_of_bounds="clip")
    levels = [reference.fit(N, column).predict([9000])[0] for column in made.curves.T]
    assert got.value == pytest.approx(levels[0])
    assert min(levels[1:]) <= got.low <= np.quantile(levels[1:], 0.05)
    assert np.quantile(levels[1:], 0.95) <= got.high <= max(levels[1:])
    beyond = extrapolate(made, target=0.99 if increasing else 0.01, method="isotonic")
    assert beyond.estimate.text(0) == "≥ 2,048"


def test_held_out_budgets_are_compared_replicate_by_replicate() -> None:
    made = line(1 - law(N, 0.05, 0.6, 0.4))
    compared = held_out(made, 2)
    start = part_of(made, slice(0, 6))
    assert [h.n for h in compared] == [1024, 2048]
    for k, h in zip((6, 7), compared, strict=True):
        assert h.measured == made.mean[k]
        assert h.predicted.estimate == extrapolate(start, n=made.n_images[k], check=0).estimate
        assert h.difference.value == pytest.approx(h.predicted.estimate.value - made.mean[k])
        assert h.covered
    assert extrapolate(made, n=4000).warnings == ()


def test_what_all_budgets_share_cancels_in_the_difference() -> None:
    quiet = line(1 - law(N, 0.05, 0.6, 0.4), noise=0.001)
    common = 0.02 * np.random.default_rng(1).normal(size=(1, 200))
    shifted = LineReplicates(N, N, N, 0 * N, quiet.mean, quiet.replicates + common)
    for h in held_out(shifted, 2):
        assert h.predicted.estimate.high - h.predicted.estimate.low > 0.06
        assert h.difference.high - h.difference.low < 0.02


def test_a_curve_that_bends_is_a_guess_and_says_so() -> None:
    mean = 1 - law(N, 0.2, 0.8, 0.6)
    mean[-2:] += [0.01, 0.02]  # it takes off again
    made = line(mean)
    assert not any(h.covered for h in held_out(made, 2))
    assert any(
        "a guess: fitted to 512 images it missed larger ones by 0.0" in w for w in extrapolate(made, n=4000).warnings
    )
    few = part_of(line(1 - law(N, 0.05, 0.6, 0.4)), slice(0, 6))
    assert extrapolate(few, n=1024).warnings == ("too few budgets to try it on held-out ones",)
