"""Intervals over seeds and test images: their parts, and the factor that makes many of them hold at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from guardtrain.curves.families import Errors, detectable, family, half_widths, shrunk_correlation
from tests.bench.intervals import LINES, World, covered


def test_without_resampled_images_each_is_students_interval_of_the_paired_differences() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.05, (3, 6))
    values[2, 4:] = np.nan  # seeds that one side lacks
    found = family(values[..., None])
    for row, half, mean in zip(values, found.alone, found.difference, strict=True):
        kept = row[~np.isnan(row)]
        assert mean == pytest.approx(kept.mean())
        assert half == pytest.approx(stats.t.ppf(0.975, len(kept) - 1) * stats.sem(kept))
    assert found.factor > 1.2
    assert np.isnan(family(values[:, :1, None]).alone).all(), "one seed"


def test_variances_of_crossed_seeds_and_images_are_found_apart() -> None:
    """Means of many draws: the seeds' variance with the interaction, the images' without it."""
    rng = np.random.default_rng(1)
    seeds, images, draws = 6, 80, 400
    seed, image, both = 0.05, 0.6, 0.8
    weights = rng.multinomial(images, np.full(images, 1 / images), size=draws) / images
    found = []
    for _ in range(60):
        terms = rng.normal(0, seed, (seeds, 1)) + rng.normal(0, image, images) + rng.normal(0, both, (seeds, images))
        found.append(Errors.of(np.column_stack([terms.mean(axis=1), terms @ weights.T])[None]))
    told = np.mean([[one.seed[0] ** 2, one.image[0] ** 2] for one in found], axis=0)
    assert told[0] == pytest.approx((seed**2 + both**2 / images) / seeds, rel=0.25)
    assert told[1] == pytest.approx(image**2 / images, rel=0.15)


def test_a_quantile_is_students_where_seeds_are_all_and_normal_where_images_are() -> None:
    sizes = np.array([5, 5, 1])
    half = half_widths(np.array([0.1, 1e-9, 0.1]), np.array([0.0, 0.1, 0.1]), sizes, 0.95)
    assert half[:2] == pytest.approx([0.1 * stats.t.ppf(0.975, 4), 0.1 * stats.norm.ppf(0.975)], rel=1e-4)
    assert np.isnan(half[2])


def test_what_moves_together_needs_no_wider_intervals() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(1, 8, 1)).repeat(12, axis=0)
    apart = rng.normal(size=(12, 8, 1))
    assert family(shared).factor == pytest.approx(1, abs=0.05)
    assert family(apart).factor > 1.5
    away = apart[..., 0] - apart[..., 0].mean(axis=1, keepdims=True)
    found = shrunk_correlation(away)
    full = np.corrcoef(away)
    assert np.diag(found) == pytest.approx(1) and np.linalg.eigvalsh(found).min() > 0
    assert np.abs(found - np.eye(12)).max() < np.abs(full - np.eye(12)).max()


@pytest.mark.parametrize("seeds", [5, 20])
def test_what_would_be_shown_is_shown_in_four_of_five(seeds: int) -> None:
    rng = np.random.default_rng(3)
    none = Errors.of(rng.normal(0, 1, (3000, seeds, 1)))
    least = detectable(none.seed, none.image, none.n_seeds, none.half_width(0.95), 0.8).mean()
    found = Errors.of(rng.normal(least, 1, (3000, seeds, 1)))
    assert np.mean(found.mean > found.half_width(0.95)) == pytest.approx(0.8, abs=0.04)
    assert family(rng.normal(0, 1, (1, seeds, 1))).detectable[0] == pytest.approx(least, rel=0.7)


def test_intervals_cover_the_population_alone_and_together() -> None:
    """A small draw of `python -m tests.bench.intervals crossed`: seeds and pairs crossed, the truth in closed form."""
    world = World(np.array([1.0 + more for more in LINES] * 3), np.full(12, 0.15), seeds=6, pairs=60)
    found = [covered(world, np.random.default_rng(seed)) for seed in range(25)]
    assert np.mean([one for one, *_ in found]) == pytest.approx(0.95, abs=0.06)
    assert np.mean([one for _, one, *_ in found]) == pytest.approx(0.95, abs=0.05)
    assert np.mean([all_of for _, _, all_of, _ in found]) >= 0.84
