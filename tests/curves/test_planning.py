"""Plans: the power they promise is the power that a fresh simulation finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from guardtrain.curves.bootstrap import seed_replicates
from guardtrain.curves.families import Errors
from guardtrain.curves.planning import (
    MOST_SEEDS,
    Pilot,
    embedded_pilots,
    moderated,
    needs,
    pilots,
    plan_text,
    power_of,
    seeds_needed,
)
from tests.curves.conftest import Frames


@pytest.mark.parametrize(("seed_sd", "image_error"), [(0.05, 0.0), (0.05, 0.008), (0.015, 0.01)])
def test_the_seeds_it_names_show_the_difference_in_four_of_five_curves(seed_sd: float, image_error: float) -> None:
    """Fresh curves with these variances, and the interval that `curve` prints of one difference."""
    seeds = seeds_needed(0.03, seed_sd, image_error, 0.8)
    assert seeds is not None
    rng = np.random.default_rng(0)
    values = np.empty((1500, seeds, 201))
    values[..., 0] = 0.03 + rng.normal(0, seed_sd, (1500, seeds)) + rng.normal(0, image_error, (1500, 1))
    values[..., 1:] = values[..., :1] + rng.normal(0, image_error, (1500, 1, 200))
    errors = Errors.of(values)
    shown = np.mean(errors.mean > errors.half_width(0.95))
    below = power_of(0.03, seed_sd, image_error, seeds - 1) if seeds > 2 else 0.0
    assert below < 0.8
    assert shown == pytest.approx(power_of(0.03, seed_sd, image_error, seeds), abs=0.035)


def test_power_is_that_of_a_paired_t_test() -> None:
    ncp = 0.5 * np.sqrt(20)
    expected = stats.nct.sf(stats.t.ppf(0.975, 19), 19, ncp)
    assert power_of(0.5, 1.0, 0.0, 20) == pytest.approx(expected)
    assert seeds_needed(0.5, 1.0, 0.0, 0.8) == 34, "the textbook's number"
    assert seeds_needed(0.1, 1.0, 0.0, 0.8) is None, f"more than {MOST_SEEDS}"


def test_where_images_are_too_few_it_says_how_many_would_do() -> None:
    pilot = Pilot("linear", "a − b", (64, 512), (0.02, 0.2), (0.02, 0.001), 300, 10.0)
    few, noisy = needs(pilot, 0.02, 0.8)
    assert few.seeds is None and few.groups is not None and few.groups > 300
    share = 0.02 / np.sqrt(few.groups / 300)
    assert power_of(0.02, 0.02, share, 20) == pytest.approx(0.8, abs=0.05)
    assert (noisy.seeds, noisy.groups, noisy.text()) == (None, None, "> 200")


def test_variances_of_few_seeds_are_taken_together() -> None:
    """Five seeds' variances stray by a factor; moved to their line they stray less, and a real departure stays."""
    rng = np.random.default_rng(0)
    x, which = np.tile(np.arange(6.0), 4), np.repeat(np.arange(4), 6)
    true = np.exp(-0.7 * x)
    drawn = true * rng.chisquare(4, 24) / 4
    found, freedom = moderated(drawn, 4, x, which)
    assert np.std(np.log(found / true)) < 0.6 * np.std(np.log(drawn / true))
    assert freedom > 8
    odd = true * np.where(rng.random(24) < 0.5, 8, 1 / 8)
    assert moderated(odd * rng.chisquare(50, 24) / 50, 50, x, which)[1] < 55


def test_a_pilot_is_every_comparison_of_a_curve(frames: Frames) -> None:
    boot = seed_replicates(frames(), "pairs", "auroc", 1)
    found = pilots(boot, 100)
    assert {pilot.name for pilot in found} == {
        "pairs ½ (replace) − real only", "pairs only − real only",
        "pairs ½ (replace) − unpaired ½ (control)", "pairs only − unpaired only (control)",
    }  # fmt: skip
    text = plan_text(found, 0.02, 0.8, "pairs", "auroc", 4, "pilot: here, 4 seeds")
    assert "Seeds that show a difference of .020 in AUROC on 'pairs' in 80 % of curves" in " ".join(text.split())
    assert "With 4 seeds it is shown: " in text
    assert pilots(seed_replicates(frames(seeds=1), "pairs", "auroc", 1), 100) == []


def test_the_embedded_pilot_is_of_the_scenes() -> None:
    found, seeds = embedded_pilots()
    assert seeds >= 20 and {pilot.budgets for pilot in found} == {(64, 256, 1024)}
    first = next(pilot for pilot in found if pilot.name == "pairs ¼ (replace) − real only")
    assert first.seed_sd[0] > 2 * first.seed_sd[-1]
