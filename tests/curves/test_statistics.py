"""Statistics against scipy, and refusals to average what is not one experiment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from guardtrain.curves.statistics import (
    Line,
    default_panels,
    half_width,
    line_points,
    lines_of,
    number_text,
    one_baseline,
    seeds_text,
    select,
    share_text,
    summarise,
)
from guardtrain.errors import DataError

PAIRED = {"arm": "replace", "control": "paired", "ratio": 0.5}
UNPAIRED = {"arm": "replace", "control": "unpaired", "ratio": 0.5}


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-6), st.sampled_from([0.8, 0.95])
)
def test_half_width_is_scipys_t_interval(values: list[float], confidence: float) -> None:
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    ours = half_width(np.array([np.std(values, ddof=1)]), np.array([len(values)]), confidence)
    np.testing.assert_allclose(ours, [(high - low) / 2], rtol=1e-9)


def test_every_point_of_the_summary_is_scipys(frames: Any) -> None:
    frame = frames()
    points = summarise(frame, "auroc")
    assert len(points) == 3 * 5 * 2  # budgets × lines × test sets
    for point in points[points["test"] == "pairs"].to_dict("records"):
        values = select(frame, {k: point[k] for k in ("arm", "control", "ratio", "budget", "test")})["auroc"].to_numpy()
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert point["n_seeds"] == len(values) == 4
        assert (point["mean"], point["low"], point["high"]) == pytest.approx((values.mean(), low, high))
        assert point["half_width"] == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval_and_undefined_seeds_do_not_count(frames: Any) -> None:
    points = summarise(frames(seeds=1), "auroc")
    assert points["mean"].notna().all()
    assert points[["std", "low", "high", "half_width"]].isna().all(axis=None)
    frame = frames()
    frame.loc[(frame["seed"] == 0) & (frame["budget"] == 16), "auroc"] = np.nan
    points = summarise(frame, "auroc")
    assert set(points.loc[points["budget"] == 16, "n_seeds"]) == {3}
    nothing = summarise(frame, "pair_both_right").query("test == 'contexts'")
    assert (nothing["n_seeds"] == 0).all()
    assert nothing["mean"].isna().all()


def test_seeds_without_spread_have_an_interval_of_width_zero(frames: Any) -> None:
    points = summarise(frames(), "auroc").query("test == 'contexts'")
    np.testing.assert_allclose(points["half_width"], 0, atol=1e-12)


def test_mixed_experiments_are_refused(frames: Any) -> None:
    frame = frames()
    other = frame.assign(encoder="clip", seed=frame["seed"] + 10)
    with pytest.raises(DataError, match=r"several encoders \(demo, clip\)"):
        summarise(pd.concat([frame, other]), "auroc")
    twice = frame.assign(run=frame["run"].str[::-1], lr=0.5)
    with pytest.raises(DataError, match=r"Several runs share .*seed 0; they differ in lr\."):
        summarise(pd.concat([frame, twice]), "auroc")
    by_lr = summarise(pd.concat([frame, twice]), "auroc", by=("lr", "control", "ratio", "budget", "test"))
    assert set(by_lr["n_seeds"]) == {4}


def test_unknown_names_are_refused(frames: Any) -> None:
    frame = frames()
    with pytest.raises(DataError, match=r"Unknown metric 'auc'; there are: auroc"):
        summarise(frame, "auc")
    with pytest.raises(DataError, match="no column colour"):
        summarise(frame, "auroc", by=("colour",))
    with pytest.raises(DataError, match="empty"):
        summarise(frame.iloc[:0], "auroc")


def test_a_baseline_of_both_arms_counts_once(frames: Any) -> None:
    frame = frames(arms=("replace", "add"))
    real = frame[frame["control"] == "none"]
    both = pd.concat([frame, real.assign(arm="add")])
    merged = one_baseline(both)
    assert len(merged) == len(frame)
    assert [line.label(both_arms=True) for line in lines_of(merged)] == [
        "real only",
        "pairs ½ (replace)",
        "unpaired ½ (replace, control)",
        "pairs only",
        "unpaired only (replace, control)",
        "pairs ½ (add)",
        "unpaired ½ (add, control)",
        "pairs 1 (add)",
        "unpaired 1 (add, control)",
    ]


def test_lines_over_ratios_start_at_real_alone(frames: Any) -> None:
    frame = frames(budgets=(400,), ratios=(0.0, 0.05, 0.2), arms=("add",), controls=("paired", "real"))
    points = summarise(frame[frame["test"] == "pairs"], "auroc")
    assert [line.label() for line in lines_of(points, over_ratios=True)] == [
        "real only",
        "pairs (add)",
        "more real (control)",
    ]
    for control in ("paired", "real"):
        own = line_points(points, Line("add", control, None))
        assert own["added"].tolist() == [0, 20, 80]
        assert own["control"].tolist() == ["none", control, control]


def test_default_panels_skip_what_is_undefined(frames: Any) -> None:
    assert default_panels(frames()) == [("contexts", "auroc"), ("pairs", "auroc"), ("pairs", "pair_both_right")]


def test_numbers_as_people_write_them() -> None:
    assert [number_text(v) for v in (0.8124, -0.02, 1.0, float("nan"), -0.0001)] == [
        ".812",
        "−.020",
        "1.00",
        "–",
        ".000",
    ]
    assert [share_text(v) for v in (0.5, 1 / 3, 0.05, 0.025, 1.0)] == ["½", "⅓", ".05", ".025", "1"]
    assert [seeds_text(v) for v in ([5, 5], [3, 5], [1])] == ["5 seeds", "3–5 seeds", "1 seed"]
