from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from guardtrain.errors import DataError
from guardtrain.guards.thresholds import operating_point
from guardtrain.guards.thresholds_picked import candidate_places
from guardtrain.guards.thresholds_rules import Rule

SHIFT = 2.0


def _drawn(n: int, rng: np.random.Generator, prevalence: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    labels = (rng.random(n) < prevalence).astype(int)
    labels[:2] = [0, 1]
    return rng.normal(size=n) + SHIFT * labels, labels


def _true_precision(threshold: float, prevalence: float) -> float:
    found, alarms = prevalence * norm.sf(threshold - SHIFT), (1 - prevalence) * norm.sf(threshold)
    return found / (found + alarms)


def test_the_places_are_fixed_by_the_number_of_images() -> None:
    for n in (1, 2, 10, 300, 100_000):
        places = candidate_places(n)
        assert places == sorted(set(places)) and places[0] >= 1 and places[-1] == n and len(places) <= 47


def test_the_point_for_precision_meets_it_and_finds_the_most() -> None:
    scores, labels = _drawn(1000, np.random.default_rng(0))
    point = operating_point(scores, labels, Rule("precision", 0.8, "point"))
    assert point.precision.value >= 0.8
    ordered = np.sort(scores)[::-1]
    for k in candidate_places(1000):
        if k < 1000 and labels[scores > ordered[k]].mean() >= 0.8:
            assert labels[scores > ordered[k]].sum() <= point.recall.count


@pytest.mark.parametrize("prevalence", [None, 0.1])
def test_a_guaranteed_precision_holds_over_validation_sets(prevalence: float | None) -> None:
    g = np.random.default_rng(1)
    target, short, reached, inside = (0.8 if prevalence is None else 0.4), 0, 0, []
    for _ in range(100):
        scores, labels = _drawn(600, g)
        point = operating_point(scores, labels, Rule("precision", target, "guaranteed", prevalence=prevalence))
        reached += point.promised
        short += point.promised and _true_precision(point.threshold, prevalence or 0.3) < target
        inside.append(point.precision.low <= _true_precision(point.threshold, 0.3) <= point.precision.high)
    assert reached >= 90  # it is no empty promise
    assert short <= 100 * 0.05 + 3 * np.sqrt(100 * 0.05 * 0.95)
    assert np.mean(inside) >= 0.93


def test_the_least_cost_is_that_of_bayes_and_its_intervals_hold() -> None:
    g = np.random.default_rng(2)
    inside = []
    for _ in range(100):
        scores, labels = _drawn(400, g)
        point = operating_point(scores, labels, Rule("cost", 2.0))
        inside.append(point.fpr.low <= norm.sf(point.threshold) <= point.fpr.high)
        inside.append(point.recall.low <= norm.sf(point.threshold - SHIFT) <= point.recall.high)
    assert np.mean(inside) >= 0.95
    scores, labels = _drawn(60_000, g)
    for ratio, prevalence in ((1.0, None), (5.0, None), (5.0, 0.02)):
        point = operating_point(scores, labels, Rule("cost", ratio, prevalence=prevalence))
        prior = prevalence or 0.3
        best = (SHIFT**2 / 2 - np.log(ratio * prior / (1 - prior))) / SHIFT  # where the log odds are those of the costs

        def cost(t: float, ratio: float = ratio, prior: float = prior) -> float:
            return ratio * prior * norm.cdf(t - SHIFT) + (1 - prior) * norm.sf(t)

        assert cost(point.threshold) <= cost(best) * 1.03
        assert point.bound is None and not point.promised


def test_a_precision_out_of_reach_says_so_or_how_many_labels_it_takes() -> None:
    g = np.random.default_rng(3)
    scores, labels = _drawn(120, g)
    (warning,) = operating_point(scores, labels, Rule("precision", 0.85, "guaranteed")).warnings
    assert warning.images == "labelled" and warning.have == 120 and warning.need > 120
    noise = operating_point(g.normal(size=300), np.tile([0, 1, 0], 100), Rule("precision", 0.95, "guaranteed"))
    assert noise.warnings[0].need is None and not noise.promised
    enough = operating_point(*_drawn(20 * warning.need, g), Rule("precision", 0.85, "guaranteed"))
    assert enough.promised and not enough.warnings


def test_both_classes_are_needed() -> None:
    with pytest.raises(DataError, match="A threshold for cost needs unsafe"):
        operating_point(np.arange(3.0), np.zeros(3, dtype=int), Rule("cost", 1.0))
