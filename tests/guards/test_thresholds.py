from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm

from guardtrain import metrics as gm
from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.thresholds import (
    DEFAULT_RULES,
    category_points,
    errors_allowed,
    operating_point,
    operating_points,
)
from guardtrain.guards.thresholds_rules import METHODS, Rule

SHIFT = 1.5  # unsafe scores are normal around it, safe ones around 0


def _drawn(n_safe: int, n_unsafe: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1], [n_safe, n_unsafe])
    return rng.normal(size=len(labels)) + SHIFT * labels, labels


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with few or many ties, (N,) of both classes."""
    n = draw(st.integers(2, 120))
    g = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = (g.random(n) < draw(st.sampled_from([0.1, 0.5, 0.8]))).astype(int)
    labels[:2] = [0, 1]
    scores = g.normal(size=n) + labels
    scores = np.round(scores, draw(st.sampled_from([0, 1, 6]))) * draw(st.sampled_from([1e-3, 1, 40]))
    return scores.astype(np.float32).astype(np.float64), labels


@settings(max_examples=30, deadline=None)
@given(labelled(), st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.9]), st.sampled_from(METHODS))
def test_a_rate_is_kept_on_validation_and_no_threshold_that_keeps_it_finds_more(
    data: tuple[np.ndarray, np.ndarray], target: float, method: str
) -> None:
    scores, labels = data
    point = operating_point(scores, labels, Rule("fpr", target, method))
    allowed = max(0, errors_allowed(int((labels == 0).sum()), target, method))
    called = point.decide(scores).astype(bool)
    assert point.fpr.count == called[labels == 0].sum() <= allowed
    assert point.recall.count == called[labels == 1].sum()
    assert (point.precision.count, point.precision.of) == (called[labels == 1].sum(), called.sum())
    lower = np.unique(scores)[np.unique(scores) < point.threshold]
    if len(lower):  # one score further down is one too far
        assert (scores[labels == 0] >= lower[-1]).sum() > allowed
    assert point.fpr.at_least <= point.fpr.count <= point.fpr.at_most
    assert ((scores.astype(np.float32) >= np.float32(point.threshold)) == called).all()


@settings(max_examples=30, deadline=None)
@given(labelled(), st.sampled_from([0.02, 0.05, 0.3]))
def test_the_recall_is_that_of_the_metrics(data: tuple[np.ndarray, np.ndarray], target: float) -> None:
    scores, labels = data
    ranks = np.unique(scores, return_inverse=True)[1] / len(scores)
    expected = gm.recall_at_fpr(torch.from_numpy(ranks)[None], torch.from_numpy(labels), target).item()
    assert operating_point(scores, labels, Rule("fpr", target, "point")).recall.value == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(labelled(), st.sampled_from([0.1, 0.5, 0.8, 0.99]), st.sampled_from(METHODS))
def test_recall_is_the_rate_of_the_other_class_seen_from_below(
    data: tuple[np.ndarray, np.ndarray], target: float, method: str
) -> None:
    scores, labels = data
    point = operating_point(scores, labels, Rule("recall", target, method))
    mirrored = operating_point(-scores, 1 - labels, Rule("fpr", 1 - target, method))
    assert point.threshold == pytest.approx(-mirrored.threshold)
    assert point.recall.count == mirrored.fpr.of - mirrored.fpr.count
    assert point.recall.low == pytest.approx(1 - mirrored.fpr.high)
    assert point.bound == pytest.approx(1 - (mirrored.bound or 0))
    if method == "point":
        assert point.recall.value >= target - 1e-12


def test_the_number_of_errors_allowed_follows_the_beta_distribution() -> None:
    for n in (20, 59, 100, 777):
        conformal, sure = errors_allowed(n, 0.05, "conformal"), errors_allowed(n, 0.05, "guaranteed")
        assert (conformal + 1) / (n + 1) <= 0.05 < (conformal + 2) / (n + 1)
        if sure >= 0:
            assert beta.ppf(0.95, sure + 1, n - sure) <= 0.05 < beta.ppf(0.95, sure + 2, n - sure - 1)
        assert sure <= conformal <= errors_allowed(n, 0.05, "point") == n // 20


def test_the_promises_hold_over_validation_sets() -> None:
    """Population rates are known here: normal scores."""
    g = np.random.default_rng(0)
    true: dict[str, list[float]] = {method: [] for method in METHODS}
    inside = {"fpr": [], "recall": []}
    for _ in range(600):
        scores, labels = _drawn(90, 40, g)
        for method in METHODS:  # the last is `point`
            point = operating_point(scores, labels, Rule("fpr", 0.05, method))
            true[method].append(norm.sf(point.threshold))
        inside["fpr"].append(point.fpr.low <= norm.sf(point.threshold) <= point.fpr.high)
        inside["recall"].append(point.recall.low <= norm.sf(point.threshold - SHIFT) <= point.recall.high)
    error = 3 * np.sqrt(0.05 * 0.95 / 600)
    assert np.mean(np.array(true["guaranteed"]) > 0.05) <= 0.05 + error
    assert np.mean(true["conformal"]) <= 0.05 + 3 * np.std(true["conformal"]) / np.sqrt(600)
    assert np.mean(np.array(true["point"]) > 0.05) > 0.4  # what the others are for
    assert np.mean(inside["fpr"]) >= 0.95 - error and np.mean(inside["recall"]) >= 0.95 - error


@pytest.mark.parametrize("n", [30, 58, 59, 300])
def test_a_default_target_is_exceeded_in_one_validation_set_of_twenty_or_not_called_guaranteed(
    n: int,
) -> None:
    """Population rates are known here: uniform scores, of which the share from t on is 1 - t."""
    g = np.random.default_rng(n)
    labels = np.repeat([0, 1], [n, 5])
    points = [operating_point(g.random(n + 5), labels, Rule("fpr", 0.05)) for _ in range(300)]
    exceeded = np.mean([1 - point.threshold > 0.05 for point in points])
    error = 3 * np.sqrt(0.05 * 0.95 / 300)
    texts = {point.chosen_for for point in points}
    if n >= 59:
        assert exceeded <= 0.05 + error
        assert texts == {"false-positive rate ≤ 0.05 (guaranteed)"}
        return
    assert texts == {f"false-positive rate ≤ 0.05 ({59 - n} safe images short)"}
    # what comes closest: above all safe images, it is exceeded in .95ⁿ of the sets
    assert exceeded == pytest.approx(0.95**n, abs=3 * np.sqrt(0.95**n * (1 - 0.95**n) / 300))
    assert not any(point.fpr.count or point.promised for point in points)


@pytest.mark.parametrize("rule", [Rule("fpr", 0.1), Rule("recall", 0.9)])
def test_rates_of_another_set_lie_where_they_are_expected(rule: Rule) -> None:
    """Random splits of one set of images; also where scores tie."""
    g = np.random.default_rng(1)
    pool, labels = _drawn(160, 100, g)
    for scores in (pool, np.round(pool * 2)):
        inside = []
        for _ in range(300):
            order = g.permutation(len(labels))
            val, test = order[:150], order[150:]
            point = operating_point(scores[val], labels[val], rule)
            called = point.decide(scores[test])
            for label, rate in ((0, point.fpr), (1, point.recall)):
                own = labels[test] == label
                low, high = rate.expected(int(own.sum()))
                inside.append(low <= called[own].mean() <= high)
        assert np.mean(inside) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 300)


def test_near_duplicates_do_not_make_a_promise_firmer() -> None:
    """Five copies, slightly moved: counted as 5 n images the guarantee breaks, in groups it holds."""
    g = np.random.default_rng(2)
    too_high = {"images": 0, "groups": 0}
    for _ in range(300):
        scores, labels = _drawn(80, 20, g)
        copies = np.repeat(scores, 5) + 1e-3 * g.normal(size=500)
        names = np.repeat(np.arange(100), 5)
        for name, groups in (("images", None), ("groups", names)):
            rule = Rule("fpr", 0.05, "guaranteed")
            point = operating_point(copies, np.repeat(labels, 5), rule, groups=groups)
            too_high[name] += norm.sf(point.threshold) > 0.05
    assert too_high["groups"] <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)
    assert too_high["images"] > 300 * 0.15
    assert point.notes == ("400 safe images lie in groups and count as 80 independent ones.",)
    assert point.fpr.effective == pytest.approx(80)


def test_ties_at_the_cut_are_left_out_and_told() -> None:
    scores = np.array([0.0] * 90 + [1.0] * 10 + [1.0] * 20)
    labels = np.repeat([0, 1], [100, 20])
    point = operating_point(scores, labels, Rule("fpr", 0.05, "point"))
    assert point.threshold > 1 and point.fpr.count == 0 and point.recall.count == 0
    assert point.fpr.high == pytest.approx(beta.ppf(0.975, 6, 95))  # that of the five allowed
    assert point.notes == ("10 images share the score at the threshold: 0 of 5 errors allowed are made.",)
    below = operating_point(scores, labels, Rule("recall", 0.9, "point"))
    assert below.threshold < 1 and below.recall.value == 1 and below.recall.low < beta.ppf(0.025, 20, 1)


@pytest.mark.parametrize(
    ("rule", "n", "images", "more"),
    [
        (Rule("fpr", 0.05, "guaranteed"), 40, "safe", 19),
        (Rule("fpr", 0.01, "conformal"), 40, "safe", None),
        (Rule("recall", 0.95, "guaranteed"), 40, "unsafe", 19),
        (Rule("fpr", 0.05), 40, "safe", 19),
        (Rule("fpr", 0.05), 400, "safe", 0),
        (Rule("fpr", 0.05, "point"), 400, "safe", 0),
    ],
)
def test_too_small_a_validation_set_warns(rule: Rule, n: int, images: str, more: int | None) -> None:
    scores, labels = _drawn(n, n, np.random.default_rng(0))
    point = operating_point(scores, labels, rule)
    if more == 0:
        assert not point.warnings
        return
    (warning,) = point.warnings
    assert (warning.images, warning.have) == (images, n) and (more is None or warning.more == more)
    assert not point.promised
    # with as many as it asks for it is silent, and not before
    scores, labels = _drawn(warning.need, warning.need, np.random.default_rng(0))
    enough = operating_point(scores, labels, rule)
    assert not enough.warnings and (rule.method != "guaranteed" or enough.promised)
    keep = np.r_[1 : warning.need, warning.need + 1 : 2 * warning.need]
    assert operating_point(scores[keep], labels[keep], rule).warnings


def test_the_default_points_are_nested_and_named() -> None:
    points = operating_points(*_drawn(1000, 500, np.random.default_rng(0)))
    assert list(points) == list(DEFAULT_RULES) == ["strict", "balanced", "permissive"] and points.default == "balanced"
    thresholds = [point.threshold for _, point in points.items()]
    assert thresholds == sorted(thresholds)
    counts = [point.fpr.count for _, point in points.items()]
    assert counts == [errors_allowed(1000, target, "guaranteed") for target in (0.1, 0.05, 0.01)]
    assert all(point.promised for _, point in points.items())
    with pytest.raises(ConfigError, match="no operating point 'loose'"):
        operating_points(*_drawn(10, 10, np.random.default_rng(0)), default="loose")
    only = operating_points(*_drawn(50, 10, np.random.default_rng(0)), {"a": Rule("recall", 0.8)})
    assert only.default == "a"


def test_categories_have_thresholds_and_rates_of_their_own() -> None:
    g = np.random.default_rng(0)
    labels = np.tile([0, 1], 300)
    categories = np.repeat(["a", "b", ""], 200)
    scores = g.normal(size=600) + labels + 5 * (categories == "b")
    points = category_points(scores, labels, categories, Rule("fpr", 0.1))
    assert list(points) == ["a", "b"] and points["b"].threshold > points["a"].threshold + 2
    assert points["a"].fpr.of == 200 and points["a"].recall.of == 100  # with the safe images of no category
    with pytest.raises(DataError, match="Category 'c': A threshold for recall needs unsafe"):
        category_points(
            scores, np.where(categories == "a", 0, labels), np.where(categories == "a", "c", "b"), Rule("recall", 0.9)
        )
    with pytest.raises(ConfigError, match="No validation image has a category"):
        category_points(scores, labels, np.array([None] * 600), Rule("fpr", 0.1))


def test_what_cannot_be_thresholded_is_refused() -> None:
    for scores, labels, message in (
        ([np.nan, 1.0], [0, 1], "NaN means"),
        ([0.0, 1.0], [1, 1], "A threshold for fpr needs safe"),
        ([0.0, 1.0], [0, 3], "Labels must be"),
    ):
        with pytest.raises(DataError, match=message):
            operating_point(np.array(scores), np.array(labels), Rule("fpr", 0.1))
    with pytest.raises(DataError, match="Groups must be"):
        operating_point(np.array([0.0, 1.0]), np.array([0, 1]), Rule("fpr", 0.1), groups=np.array(["a"]))


def test_neighbours_in_float32_are_still_told_apart() -> None:
    low = np.float32(2.0)
    scores = np.array([1.0, np.nextafter(low, np.float32(0)), low, np.nextafter(low, np.float32(3)), 3.0], np.float32)
    for k in range(4):
        labels = np.zeros(5, dtype=int)
        for rule in (Rule("fpr", k / 5 + 0.01, "point"), Rule("recall", 1 - k / 5 - 0.01, "point")):
            own = labels if rule.kind == "fpr" else 1 - labels
            point = operating_point(scores, own, rule)
            expected = np.arange(5) >= (5 - k if rule.kind == "fpr" else k)
            assert (point.decide(scores) == expected).all()
            assert ((scores >= np.float32(point.threshold)) == expected).all()


def test_an_image_without_a_group_is_its_own() -> None:
    scores, labels = _drawn(50, 10, np.random.default_rng(0))
    groups = np.array([None] * 40 + ["a"] * 10 + [None] * 10, dtype=object)
    point = operating_point(scores, labels, Rule("fpr", 0.1), groups=groups)
    assert point.fpr.effective == pytest.approx(50**2 / (40 + 10**2)) and point.recall.effective == 10
