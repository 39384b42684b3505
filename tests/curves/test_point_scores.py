"""What reliability and ROC are drawn from: scikit-learn's curves, run by run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from guardtrain.curves.point_scores import PointChoice, over_rows, point_scores, reliability, roc
from guardtrain.curves.scores import ScoresFolder
from guardtrain.curves.statistics import Line
from guardtrain.errors import ConfigError, DataError
from guardtrain.metrics import ece
from tests.curves.scored_curve import scored_curve

Curve = tuple[pd.DataFrame, Path]


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    return scored_curve(tmp_path_factory.mktemp("curve"))


@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.booleans())
@settings(max_examples=50, deadline=None)
def test_reliability_is_scikit_learns_and_its_gap_the_calibration_error(seed: int, n_bins: int, certain: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((3, 80)).astype(np.float32)
    labels = (rng.random(80) < 0.4).astype(np.int64)
    if certain:
        scores[:, :5], labels[:5] = 1.0, 1  # a bin of its own in the calibration error; right, so it adds nothing
    predicted, unsafe, share = reliability(scores, labels, n_bins)
    assert share.sum(axis=1) == pytest.approx(1)
    gaps = np.nansum(share * np.abs(predicted - unsafe), axis=1)
    if not certain:
        np.testing.assert_allclose(gaps, ece(torch.from_numpy(scores), torch.from_numpy(labels), n_bins), atol=1e-6)
    for row in range(3):
        expected_unsafe, expected_predicted = calibration_curve(labels, scores[row], n_bins=n_bins)
        full = share[row] > 0
        np.testing.assert_allclose(predicted[row][full], expected_predicted, atol=1e-6)
        np.testing.assert_allclose(unsafe[row][full], expected_unsafe, atol=1e-6)
        assert np.isnan(predicted[row][~full]).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 10, 1000]))
@settings(max_examples=50, deadline=None)
def test_roc_is_scikit_learns_also_with_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, 40)]
    scores = (rng.integers(0, levels, (2, 42)) / levels).astype(np.float32)
    fine = np.linspace(0, 1, 4001)
    drawn = roc(scores, labels, fine)
    assert (np.diff(drawn, axis=1) >= 0).all()
    for row in range(2):
        rate, found, _ = roc_curve(labels, scores[row], drop_intermediate=False)
        upper = pd.Series(found).groupby(rate).max()  # where it rises, the upper end
        np.testing.assert_allclose(roc(scores[[row]], labels, upper.index.to_numpy())[0], upper, atol=1e-12)
        area = np.trapezoid(drawn[row], fine)
        assert area == pytest.approx(roc_auc_score(labels, scores[row]), abs=2e-3)


def test_one_class_has_no_roc() -> None:
    with pytest.raises(DataError, match="one kind"):
        roc(np.zeros((1, 3)), np.ones(3, dtype=int), np.array([0.5]))


def test_means_and_intervals_over_seeds() -> None:
    values = np.array([[1.0, 2.0, np.nan], [2.0, np.nan, np.nan], [4.0, 3.0, np.nan]])
    mean, half = over_rows(values)
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1, 2, 4]))
    assert (mean[0] - half[0], mean[0] + half[0]) == pytest.approx((low, high))
    assert mean[1] == 2.5
    assert np.isnan([mean[2], half[2]]).all()


def test_points_are_the_kept_scores_with_the_tables_metrics(curve: Curve) -> None:
    frame, folder = curve
    points = point_scores(frame, folder)
    assert {p.budget for p in points} == {256}, "the largest by default"
    assert len(points) == 2 * 5
    keys, scores, records = ScoresFolder(folder).read("pairs")
    point = next(p for p in points if p.line == Line("replace", "paired", 0.5) and p.test == "pairs")
    rows = frame[
        (frame["test"] == "pairs")
        & (frame["slice_kind"] == "all")
        & (frame["control"] == "paired")
        & (frame["ratio"] == 0.5)
        & (frame["budget"] == 256)
    ].sort_values("seed")
    np.testing.assert_array_equal(point.scores.ranked, scores.ranked[[keys.tolist().index(run) for run in rows["run"]]])
    np.testing.assert_array_equal(point.labels, records.labels)
    mean, half = point.metrics.pop("ece")
    assert mean == pytest.approx(rows["ece"].mean()) and np.isnan(half) and 0 < point.chance < 0.2
    for name, (mean, half) in point.metrics.items():
        low, high = stats.t.interval(0.95, 3, loc=rows[name].mean(), scale=stats.sem(rows[name]))
        assert (mean - half, mean + half) == pytest.approx((low, high))


def test_choices_select(curve: Curve) -> None:
    frame, folder = curve
    chosen = point_scores(frame, folder, PointChoice(64, 0.5, "replace", "paired"), ["pairs"])
    assert [(p.line, p.budget) for p in chosen] == [(Line("replace", "paired", 0.5), 64)]
    assert [p.line.control for p in point_scores(frame, folder, PointChoice(control="none"), ["pairs"])] == ["none"]
    same_arm = point_scores(frame, folder, PointChoice(arm="replace"), ["pairs"])
    assert len(same_arm) == 5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (PointChoice(budget=100), "budget 100; they have 16, 32, 64, 128, 256"),
        (PointChoice(ratio=0.25), "ratio ¼"),
        (PointChoice(arm="add"), "arm add; they have replace"),
        (
            PointChoice(budget=64, control="real"),
            "control real among those with budget 64; they have none, paired, unp",
        ),
    ],
)
def test_a_point_that_is_not_there_is_refused_with_those_that_are(
    curve: Curve, choice: PointChoice, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        point_scores(*curve, choice)


def test_wrong_names_are_refused(curve: Curve, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Unknown test set 'wild'; the results have: pairs, contexts"):
        point_scores(*curve, tests=["wild"])
    with pytest.raises(ConfigError, match=r"plot.point.arm is 'adds'; allowed: replace, add"):
        PointChoice(arm="adds")
    with pytest.raises(DataError, match="no records of test set"):
        point_scores(curve[0], tmp_path)
    other, _ = scored_curve(tmp_path / "other", seeds=5)
    with pytest.raises(DataError, match=r"no scores on 'pairs' of .* runs"):
        point_scores(other, curve[1])
