"""The bootstrap against physically repeated images, scikit-learn and scipy; and whether its intervals cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri
from sklearn.metrics import roc_auc_score

from guardtrain import metrics
from guardtrain.curves import bootstrap
from guardtrain.curves.bootstrap import (
    BOOTSTRAP_METRICS,
    bootstrap_difference,
    bootstrap_points,
    group_draws,
    group_index,
    interval,
    over_seeds,
    resample,
    seed_draws,
    seed_weights,
    weighted_metric,
)
from guardtrain.curves.scores import Scores, ScoresFolder
from guardtrain.curves.statistics import select
from guardtrain.errors import DataError
from guardtrain.records import Records

of = Scores.of_probabilities
NO_PAIRS = np.zeros(0, int), np.zeros(0, int)
PAIRED = {"control": "paired", "ratio": 0.5}
UNPAIRED = {"control": "unpaired", "ratio": 0.5}


@st.composite
def samples(draw: st.DrawFn) -> dict[str, Any]:
    """Pairs, single images, groups of several units, scores with many ties, and how often each group is drawn."""
    n_pairs, n_single = draw(st.integers(1, 8)), draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    units = n_pairs + n_single
    group_of_unit = rng.integers(0, max(1, units // draw(st.integers(1, 3))), units)
    labels = np.r_[np.zeros(n_pairs, int), np.ones(n_pairs, int), rng.integers(0, 2, n_single)]
    group = np.r_[group_of_unit[:n_pairs], group_of_unit[:n_pairs], group_of_unit[n_pairs:]]
    order = rng.permutation(len(labels))  # the halves of a pair anywhere
    place = np.argsort(order)
    return {
        "scores": (rng.integers(0, levels + 1, (3, len(labels))) / levels).astype(np.float32),
        "labels": labels[order],
        "pairs": (place[:n_pairs], place[n_pairs : 2 * n_pairs]),
        "group": group[order],
        "draws": rng.integers(0, 4, (group.max() + 1, 4)).astype(np.uint16),
    }


def _repeated(sample: dict[str, Any], column: int, metric: str) -> np.ndarray:
    """The metric on images, or pairs, physically repeated."""
    times = sample["draws"][:, column].astype(int)
    rows = np.repeat(np.arange(len(sample["labels"])), times[sample["group"]])
    scores, labels = sample["scores"], sample["labels"]
    if metric == "auroc":
        if len(np.unique(labels[rows])) < 2:
            return np.full(len(scores), np.nan)
        return np.array([roc_auc_score(labels[rows], s[rows]) for s in scores])
    if metric in ("accuracy", "brier"):
        return getattr(metrics, metric)(torch.tensor(scores[:, rows]), torch.tensor(labels[rows])).numpy()
    twice = [np.repeat(half, times[sample["group"][half]]) for half in sample["pairs"]]
    return getattr(metrics, metric)(torch.tensor(scores), (twice[0], twice[1])).numpy()


@pytest.mark.parametrize("metric", BOOTSTRAP_METRICS)
@given(sample=samples())
@settings(max_examples=60, deadline=None)
def test_weights_are_repetitions(metric: str, sample: dict[str, Any]) -> None:
    ours = weighted_metric(**sample | {"scores": of(sample["scores"])}, metric=metric)
    expected = np.stack([_repeated(sample, b, metric) for b in range(4)], axis=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_what_ranks_is_taken_of_logits() -> None:
    """Probabilities of these logits are all 1: only their order says which image is the safer one."""
    labels, halves = np.array([0, 1]), (np.array([0]), np.array([1]))
    logits = np.array([[30.0, 40.0]], dtype=np.float32)
    args = labels, halves, np.zeros(2, dtype=int), np.ones((1, 1))
    for metric, value in (("auroc", 1), ("pair_ranking", 1), ("pair_margin", 10), ("pair_both_right", 0)):
        assert weighted_metric(Scores.of_logits(logits), *args, metric).item() == value
    assert weighted_metric(of(1 / (1 + np.exp(-logits))), *args, "auroc").item() == 0.5


@pytest.mark.parametrize("metric", BOOTSTRAP_METRICS)
def test_blocks_do_not_change_the_result(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    halves = np.arange(0, 40, 2), np.arange(1, 40, 2)
    args = of(rng.random((7, 40), np.float32)), np.arange(40) % 2, halves, np.arange(40) // 2, group_draws(20, 11, rng)
    whole = weighted_metric(*args, metric)
    monkeypatch.setattr(bootstrap, "_RUNS_AT_ONCE", 3)
    monkeypatch.setattr(bootstrap, "_BLOCK_BYTES", 8 * 40 * 4)
    np.testing.assert_allclose(weighted_metric(*args, metric), whole, rtol=1e-14)


def test_pairs_stay_whole_and_are_drawn_as_one() -> None:
    """Within every pair the unsafe half wins: pairs kept whole rank right in every replicate, whatever is drawn."""
    rng = np.random.default_rng(0)
    base = rng.random(30)
    scores = np.r_[base * 0.9, base * 0.9 + 0.05][None].astype(np.float32)
    labels, groups = np.repeat([0, 1], 30), np.tile([f"p{i}" for i in range(30)], 2)
    pairs = np.arange(30), np.arange(30, 60)
    assert (resample(of(scores), labels, groups, pairs, "pair_ranking", 50, rng) == 1).all()
    # As many safe as unsafe images in every replicate: a head that calls all unsafe is right half the time, always.
    assert (resample(of(np.ones_like(scores)), labels, groups, pairs, "accuracy", 50, rng) == 0.5).all()
    alone = resample(of(np.ones_like(scores)), labels, np.arange(60), NO_PAIRS, "accuracy", 50, rng)
    assert alone.std() > 0.03
    with pytest.raises(DataError, match=r"halves of 30 pairs are in two groups each \(such as '0' and '30'\)"):
        resample(of(scores), labels, np.arange(60), pairs, "pair_ranking", 5, rng)


def test_draws_sum_to_the_number_of_units_and_follow_the_generator() -> None:
    for draw in (group_draws, seed_draws):
        counts = draw(7, 2000, np.random.default_rng(3))
        assert (counts.sum(axis=0) == 7).all()
        np.testing.assert_allclose(counts.mean(axis=1), 1, atol=0.1)
        np.testing.assert_allclose(counts.var(axis=1), 6 / 7, atol=0.1)  # multinomial
        np.testing.assert_array_equal(counts, draw(7, 2000, np.random.default_rng(3)))


def test_plain_interval_of_a_mean_is_scipys_percentile_interval() -> None:
    values = np.random.default_rng(0).gamma(2, size=25)
    draws = seed_draws(25, 20_000, np.random.default_rng(1))
    ours = interval(over_seeds(np.tile(values[:, None], 20_000), values, draws, None))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose(ours, (theirs.low, theirs.high), rtol=0.015)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_stretched_interval_of_a_mean_is_as_wide_as_students(n: int) -> None:
    values = ndtri((np.arange(n) + 0.5) / n)
    draws = seed_draws(n, 20_000, np.random.default_rng(0))
    low, high = interval(over_seeds(np.tile(values[:, None], 20_000), values, draws))
    student = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (high - low) / (student[1] - student[0]) == pytest.approx(1, abs=0.04)
    narrow, wide = interval(over_seeds(np.tile(values[:, None], 20_000), values, draws, None))
    assert wide - narrow < high - low


def test_weights_of_seeds_sum_to_one_and_know_when_none_was_drawn() -> None:
    draws = np.array([[2, 1, 0], [0, 1, 0]], np.uint16)
    np.testing.assert_allclose(seed_weights(draws, None), [[1, 0.5, np.nan], [0, 0.5, np.nan]])
    np.testing.assert_allclose(seed_weights(draws)[:, :2].sum(axis=0), 1)
    np.testing.assert_array_equal(seed_weights(np.array([[1, 1]], np.uint16)), [[1, 1]])
    assert np.isnan(over_seeds(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)))).all()


def test_interval_leaves_undefined_replicates_out() -> None:
    values = np.r_[np.linspace(0, 1, 101), np.nan]
    low, high = interval(np.stack([values, np.full(102, np.nan)]), 0.9)
    np.testing.assert_allclose((low, high), [(0.05, np.nan), (0.95, np.nan)])


@pytest.fixture
def curve(frames: Any, tmp_path: Path) -> tuple[Any, ScoresFolder, np.ndarray]:
    """A results table, its scores on 40 pairs (more right with pairs), and the scores by row of the table."""
    frame = frames(budgets=(16, 64))
    frame = frame[frame["test"] == "pairs"].reset_index(drop=True)
    ids = [f"{i}{half}" for i in range(40) for half in "su"]
    records = Records.from_columns(id=ids, label=[0, 1] * 40, pair_id=[f"p{i}" for i in range(40) for _ in "su"])
    rng = np.random.default_rng(5)
    hard = rng.normal(size=40).repeat(2)
    skill = (frame["control"] == "paired").to_numpy() * 0.8 + frame["budget"].to_numpy() / 128
    sign = np.tile([-1.0, 1.0], 40)
    logits = sign * (skill[:, None] + hard + rng.normal(size=(len(frame), 80)))
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    folder = ScoresFolder(tmp_path / "scores")
    folder.write_test_records("pairs", records)
    shuffled = rng.permutation(len(frame))  # scores are found by run, not by place
    folder.write(frame["run"].to_numpy()[shuffled], {"pairs": of(scores[shuffled])})
    return frame, folder, scores


def test_points_have_the_mean_over_seeds_and_an_interval_around_it(curve: Any) -> None:
    frame, folder, scores = curve
    boot = bootstrap_points(frame, folder, "pairs", "pair_both_right", replicates=300)
    assert boot.replicates.shape == (10, 300)
    halves = np.arange(0, 80, 2), np.arange(1, 80, 2)
    truth = metrics.pair_both_right(torch.tensor(scores), halves).numpy()
    for point in boot.points.to_dict("records"):
        own = select(frame, {k: point[k] for k in ("arm", "control", "ratio", "budget")}).index
        assert point["mean"] == pytest.approx(truth[own].mean())
        assert point["n_seeds"] == 4
        assert point["n_pair_images"] == point["budget"] * point["ratio"]
        assert point["low"] < point["mean"] < point["high"]
    again = bootstrap_points(frame.sample(frac=1, random_state=0), folder.path, "pairs", "pair_both_right", 300)
    np.testing.assert_allclose(again.replicates, boot.replicates, rtol=1e-12)
    other = bootstrap_points(frame, folder, "pairs", "pair_both_right", 300, seed=1)
    assert not np.array_equal(other.replicates, boot.replicates)


def test_one_draw_of_seeds_and_groups_for_all_points(curve: Any) -> None:
    """Two points whose runs have the same scores seed by seed have the same replicates."""
    frame, folder, _ = curve
    keys, scores, records = folder.read("pairs")
    rows = frame.set_index("run").loc[keys]
    same = np.stack([scores.ranked[np.flatnonzero(rows["seed"] == seed)[0]] for seed in rows["seed"]])
    copy = ScoresFolder(folder.path.parent / "same")
    copy.write_test_records("pairs", records)
    copy.write(keys, {"pairs": of(same)})
    boot = bootstrap_points(frame, copy, "pairs", "auroc", 50)
    assert np.ptp(boot.replicates, axis=0).max() < 1e-12
    assert np.ptp(boot.replicates[0]) > 0.01
    assert bootstrap_difference(boot, PAIRED, UNPAIRED)[["difference", "low", "high"]].abs().max(axis=None) < 1e-12


def test_paired_difference_is_narrower_than_the_sides_apart(curve: Any) -> None:
    frame, folder, _ = curve
    boot = bootstrap_points(frame, folder, "pairs", "accuracy", 500)
    points = bootstrap_difference(boot, PAIRED, UNPAIRED)
    a, b = (select(boot.points, side).set_index("budget") for side in (PAIRED, UNPAIRED))
    assert points["budget"].tolist() == [16, 64]
    np.testing.assert_allclose(points["difference"], (a["mean"] - b["mean"]).to_numpy())
    apart = np.hypot(a["high"] - a["low"], b["high"] - b["low"]).to_numpy()
    assert (points["high"] - points["low"] < apart).all()


def test_seeds_a_point_lacks_and_one_seed(curve: Any) -> None:
    frame, folder, _ = curve
    lacking = frame[~((frame["control"] == "none") & (frame["seed"] < 2))]
    boot = bootstrap_points(lacking, folder, "pairs", "auroc", 300)
    assert boot.points["n_seeds"].tolist() == [2, 2] + [4] * 8
    assert np.isnan(boot.replicates[:2]).mean() == pytest.approx(0.5**4, abs=0.05), "none of the two was drawn"
    assert not np.isnan(boot.replicates[2:]).any()
    alone = bootstrap_points(frame[frame["seed"] == 0], folder, "pairs", "auroc", 300)
    assert (alone.points["low"] < alone.points["high"]).all()


def test_refusals(curve: Any, frames: Any) -> None:
    frame, folder, _ = curve
    with pytest.raises(DataError, match=r"'f1' cannot be resampled; those that can: auroc, accuracy"):
        bootstrap_points(frame, folder, "pairs", "f1")
    with pytest.raises(DataError, match="no test set 'wild'; they have: pairs"):
        bootstrap_points(frame, folder, "wild", "auroc")
    more = frames(budgets=(16, 32, 64))
    with pytest.raises(DataError, match="no scores on 'pairs' of 20 runs"):
        bootstrap_points(more[more["test"] == "pairs"], folder, "pairs", "auroc")
    boot = bootstrap_points(frame, folder, "pairs", "auroc", 10)
    with pytest.raises(DataError, match="Several points at one budget"):
        bootstrap_difference(boot, {"control": "paired"}, UNPAIRED)
    with pytest.raises(DataError, match="No point"):
        bootstrap_difference(boot, {"control": "real"}, UNPAIRED)
    with pytest.raises(DataError, match="Groups are"):
        weighted_metric(of(np.zeros((1, 2))), np.array([0, 1]), NO_PAIRS, np.array([0, 5]), np.ones((2, 3)), "auroc")
    assert group_index(np.array(["b", "a", "b"]), NO_PAIRS)[1] == 2


def test_nominal_95_percent_intervals_of_a_difference_cover() -> None:
    """Five seeds and 120 images of shared difficulty, two arms; the truth is a difference of normal probabilities."""
    rng = np.random.default_rng(0)
    seeds, groups, replicates = 5, 120, 200
    level = np.array([0.6, 0.7])
    spread = np.sqrt(0.6**2 + 0.8**2 + 0.2**2)
    covered = []
    for _ in range(200):
        image, seed = rng.normal(0, 0.6, groups), rng.normal(0, 0.2, (2, seeds, 1))
        right = ndtri(level)[:, None, None] * spread + image + seed + rng.normal(0, 0.8, (2, seeds, groups)) > 0
        scores = right.reshape(-1, groups).astype(np.float32)
        ones, names = np.ones(groups, int), np.arange(groups)
        values = resample(of(scores), ones, names, NO_PAIRS, "accuracy", replicates, rng).reshape(2, seeds, replicates)
        draws, observed = seed_draws(seeds, replicates, rng), right.mean(axis=2)
        arms = [over_seeds(values[arm], observed[arm], draws) for arm in (0, 1)]
        low, high = interval(arms[1] - arms[0])
        covered.append(low <= level[1] - level[0] <= high)
    assert 0.90 <= np.mean(covered) <= 0.99
