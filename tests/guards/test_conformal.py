from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.conformal import three_way
from guardtrain.guards.operating_points import REVIEW, SAFE, UNSAFE


def _drawn(n: int, rng: np.random.Generator, shift: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    labels = (np.arange(n) % 3 == 0).astype(int)
    return rng.normal(size=n) + shift * labels, labels


@pytest.mark.parametrize("shift", [1.0, 6.0])  # with much review, and with thresholds that cross
def test_either_error_is_kept_on_average(shift: float) -> None:
    g = np.random.default_rng(0)
    wrong = []
    for _ in range(400):
        scores, labels = _drawn(240, g, shift)
        rows = g.permutation(240)
        val, test = rows[:120], rows[120:]
        point = three_way(scores[val], labels[val], false_alarms=0.1, misses=0.1, method="conformal")
        called, y = point.decide(scores[test]), labels[test]
        wrong.append(((called[y == 0] == UNSAFE).mean(), (called[y == 1] == SAFE).mean()))
        assert ((called == REVIEW).any() or shift > 1) and point.lower <= point.upper
    means, errors = np.mean(wrong, axis=0), np.std(wrong, axis=0) / np.sqrt(400)
    assert (means <= 0.1 + 3 * errors).all()
    if shift == 1.0:
        assert (means >= 0.05).all()  # and not by calling for people all the time


def test_the_split_conformal_quantiles_are_the_thresholds() -> None:
    """⌈(n + 1)(1 - α)⌉-th smallest non-conformity of each class, as numpy's `higher` quantile has it."""
    scores, labels = _drawn(300, np.random.default_rng(1))
    point = three_way(scores, labels, false_alarms=0.1, misses=0.2, method="conformal")
    for values, alpha, threshold in (
        (scores[labels == 0], 0.1, point.upper),
        (-scores[labels == 1], 0.2, -point.lower),
    ):
        n = len(values)
        quantile = np.quantile(values, np.ceil((n + 1) * (1 - alpha)) / n, method="inverted_cdf")
        assert quantile < threshold < values[values > quantile].min()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 60), st.sampled_from([0, 1, 6]), st.sampled_from([0.0, 1.0, 8.0]))
def test_the_rates_are_what_is_decided_on_validation(seed: int, n: int, digits: int, shift: float) -> None:
    g = np.random.default_rng(seed)
    scores, labels = _drawn(n, g, shift)
    scores = np.round(scores, digits)
    point = three_way(scores, labels, false_alarms=0.1, misses=0.2, groups=g.integers(0, n, n))
    called = point.decide(scores)
    assert point.false_alarms.count == (called[labels == 0] == UNSAFE).sum()
    assert point.misses.count == (called[labels == 1] == SAFE).sum()
    assert point.reviewed_safe.count == (called[labels == 0] == REVIEW).sum()
    assert point.reviewed_unsafe.count == (called[labels == 1] == REVIEW).sum()
    assert point.caught.count == (called[labels == 1] == UNSAFE).sum() and point.caught.of == labels.sum()
    for rate in (point.false_alarms, point.misses):
        assert rate.low <= rate.value <= rate.high


def test_a_guarantee_leaves_more_to_people() -> None:
    scores, labels = _drawn(600, np.random.default_rng(2))
    loose, firm = (three_way(scores, labels, method=method) for method in ("conformal", "guaranteed"))
    assert firm.upper > loose.upper and firm.lower < loose.lower
    assert firm.reviewed_safe.value > loose.reviewed_safe.value


def test_classes_far_apart_leave_nothing_to_people() -> None:
    scores = np.concatenate([np.linspace(0, 1, 100), np.linspace(9, 10, 100)])
    labels = np.repeat([0, 1], 100)
    point = three_way(scores, labels)
    assert point.lower == point.upper and 1 < point.upper < 9.1
    assert point.decide(scores).tolist() == labels.tolist()
    assert point.notes == ("One threshold keeps both shares: nothing is left for review.",)
    assert point.false_alarms.count == 0 and point.false_alarms.high > 0.05  # what was promised stays


def test_few_images_warn_for_either_class() -> None:
    point = three_way(*_drawn(30, np.random.default_rng(0)))
    assert [(w.images, w.need) for w in point.warnings] == [("safe", 59), ("unsafe", 59)]
    assert point.chosen_for == (
        "safe called unsafe ≤ 0.05 (39 safe images short), unsafe called safe ≤ 0.05 (49 unsafe images short)"
    )
    enough = three_way(*_drawn(90, np.random.default_rng(0)), misses=0.1)
    assert enough.chosen_for == "safe called unsafe ≤ 0.05 (guaranteed), unsafe called safe ≤ 0.1 (guaranteed)"
    assert enough.chosen_for in enough.line


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(DataError, match="A three-way decision needs unsafe"):
        three_way(np.arange(3.0), np.zeros(3, dtype=int))
    with pytest.raises(ConfigError, match="target of a threshold for fpr must be a share"):
        three_way(*_drawn(9, np.random.default_rng(0)), false_alarms=0.0)
