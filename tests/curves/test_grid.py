from __future__ import annotations

import pytest

from guardtrain.curves.grid import GridPoint, GridSettings, grid_points
from guardtrain.errors import ConfigError


def test_real_only_is_run_once_and_every_other_combination_once() -> None:
    settings = GridSettings(
        budgets=[16, 32], ratios=[0.0, 0.5], arms=["replace", "add"], controls=["paired", "unpaired", "real"], seeds=2
    )
    points = list(grid_points(settings))
    assert len(points) == len(set(points)) == 2 * 2 * (1 + 3 + 2)
    assert sum(p.ratio == 0 for p in points) == 4
    # replace + real is the real-only run by another name
    assert not [p for p in points if (p.arm, p.control) == ("replace", "real")]
    assert GridPoint(1, 32, 0.5, "add", "real") in points


def test_seeds_come_one_after_the_other_from_the_first() -> None:
    seeds = [p.seed for p in grid_points(GridSettings(budgets=[16], ratios=[0.0, 1.0], seeds=3, first_seed=7))]
    assert sorted(seeds) == seeds
    assert set(seeds) == {7, 8, 9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": []}, "grid.budgets is empty"),
        ({"budgets": [16, 16]}, "twice"),
        ({"budgets": [1]}, "at least 2 images"),
        ({"ratios": [1.5]}, r"share in \[0, 1\]"),
        ({"arms": ["swap"]}, "allowed: replace, add"),
        ({"controls": ["none"]}, "allowed: paired, shuffled, unpaired, balanced, real"),
        ({"rounding": "up"}, "allowed: exact, nearest"),
        ({"seeds": 0}, ">= 1"),
    ],
)
def test_impossible_grids_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GridSettings(**changes)  # type: ignore[arg-type]
