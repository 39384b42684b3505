from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.conformal import three_way
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints, ThreeWay, operating_point_from_dict
from guardtrain.guards.thresholds import operating_point
from guardtrain.guards.thresholds_rules import Rule


def _points(seed: int = 0, n: int = 60) -> OperatingPoints:
    g = np.random.default_rng(seed)
    labels = np.tile([0, 1], n)[:n]
    scores = np.round(g.normal(size=n) + labels, 1)
    rules = {
        "strict": Rule("recall", 0.9, "guaranteed"),
        "balanced": Rule("cost", 3.0, prevalence=0.1),
        "precise": Rule("precision", 0.8, "guaranteed", confidence=0.9),
        "permissive": Rule("fpr", 0.02, "conformal"),
    }
    groups = g.integers(0, n, n)
    made = tuple(operating_point(scores, labels, rule, groups=groups, name=name) for name, rule in rules.items())
    return OperatingPoints((*made, three_way(scores, labels, groups=groups)), "balanced")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 80))
def test_they_survive_json_to_the_bit(seed: int, n: int) -> None:
    points = _points(seed, n)
    back = OperatingPoints.from_dict(json.loads(json.dumps(points.to_dict(), allow_nan=False)))
    assert back == points and back.to_dict() == points.to_dict()
    at = np.random.default_rng(0).normal(size=50)
    for name, point in points.items():
        assert (back[name].decide(at) == point.decide(at)).all()


def test_they_are_an_ordered_mapping_that_names_what_there_is() -> None:
    points = _points()
    assert list(points) == ["strict", "balanced", "precise", "permissive", "review"] and len(points) == 5
    assert "strict" in points and "lax" not in points
    assert isinstance(points["strict"], OperatingPoint) and isinstance(points["review"], ThreeWay)
    with pytest.raises(ConfigError, match="no operating point 'lax'; this guard has: strict, balanced, precise"):
        points["lax"]
    with pytest.raises(ConfigError, match="Two operating points are called 'strict'"):
        OperatingPoints((points["strict"], points["strict"]))
    with pytest.raises(ConfigError, match="at least one"):
        OperatingPoints(())
    assert OperatingPoints((points["permissive"],)).default == "permissive"


def test_an_image_at_the_threshold_is_unsafe() -> None:
    points = _points()
    point, review = points["strict"], points["review"]
    below = np.nextafter(point.threshold, -np.inf)
    assert point.decide(np.array([[below, point.threshold]])).tolist() == [[0, 1]]
    edges = np.array([np.nextafter(review.lower, -np.inf), review.lower, review.upper])
    assert review.decide(edges).tolist() == [0, 2 if review.lower < review.upper else 1, 1]


def test_the_line_says_rule_rates_and_bound() -> None:
    labels = np.repeat([0, 1], 100)
    point = operating_point(np.arange(200.0), labels, Rule("fpr", 0.05), name="balanced")
    assert point.line == (
        "balanced: false-positive rate ≤ 0.05 (guaranteed), threshold 98.02: fpr .010 [.000, .054], recall 1.000 "
        "[.964, 1.000]; fpr at most 0.047 with 95% confidence"
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule("fpr", 0.05), "false-positive rate ≤ 0.05 (guaranteed)"),
        (Rule("fpr", 0.01), "false-positive rate ≤ 0.01 (199 safe images short)"),
        (Rule("fpr", 0.01, "point"), "false-positive rate ≤ 0.01 (point)"),
        (Rule("recall", 0.99), "recall ≥ 0.99 (199 unsafe images short)"),
        (Rule("cost", 5.0, prevalence=0.02), "least cost, a miss costing 5 false alarms where 2 % are unsafe"),
    ],
    ids=str,
)
def test_the_word_guaranteed_stands_where_it_holds(rule: Rule, words: str) -> None:
    point = operating_point(np.arange(200.0), np.repeat([0, 1], 100), rule)
    assert point.chosen_for == words and f": {words}, threshold" in point.line
    old = point.to_dict() | {"rule": point.rule.to_dict()}  # as versions wrote it that warned alone
    assert operating_point_from_dict(old).chosen_for == words


def test_a_precision_out_of_reach_is_said_to_be() -> None:
    g = np.random.default_rng(0)
    noise = operating_point(g.normal(size=300), np.tile([0, 1, 0], 100), Rule("precision", 0.95))
    assert noise.chosen_for == "precision ≥ 0.95 (out of reach)"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"threshold": float("nan")}, DataError, "must be a finite number"),
        ({"threshold": "0"}, DataError, "must be a finite number"),
        ({"decision": "four_way"}, DataError, "is two_way or three_way"),
        ({"extra": 1}, DataError, "has no extra"),
        ({"rule": {"kind": "fpr"}}, DataError, "A Rule lacks target"),
        ({"fpr": {"value": 0.1}}, DataError, "A Rate lacks count"),
        ({"warnings": [{}]}, DataError, "A TooFewLabels lacks promise"),
    ],
)
def test_what_is_no_point_is_refused(change: dict, error: type, message: str) -> None:
    data = _points()["strict"].to_dict() | change
    with pytest.raises(error, match=message):
        operating_point_from_dict(data)
    review = _points()["review"].to_dict()
    with pytest.raises(DataError, match="is above the upper"):
        operating_point_from_dict(review | {"lower": review["upper"] + 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "f1", "target": 0.5}, "rule is fpr, recall, precision, cost; this one is 'f1'"),
        ({"kind": "fpr", "target": 0.5, "method": "exact"}, "method is guaranteed, conformal, point"),
        ({"kind": "cost", "target": 2.0, "method": "guaranteed"}, "for cost cannot be guaranteed"),
        ({"kind": "precision", "target": 0.5, "method": "conformal"}, "for precision cannot be conformal"),
        ({"kind": "fpr", "target": 5}, "must be a share between 0 and 1; it is 5"),
        ({"kind": "fpr", "target": float("nan")}, "must be a share"),
        ({"kind": "cost", "target": 0.0}, "must be a ratio above 0"),
        ({"kind": "fpr", "target": 0.1, "confidence": 0.4}, "must be above 0.5"),
        ({"kind": "cost", "target": 1.0, "prevalence": 1.0}, "The prevalence"),
        ({"kind": "fpr", "target": True}, "must be a share"),
    ],
)
def test_a_wrong_rule_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rule(**values)


def test_reading_and_deciding_need_numpy_alone() -> None:
    points = json.dumps(_points().to_dict())
    code = (
        "import json, sys; import numpy as np\n"
        "from guardtrain.guards.operating_points import OperatingPoints\n"
        "from guardtrain.guards.calibration import calibrator_from_dict\n"
        f"points = OperatingPoints.from_dict(json.loads({points!r}))\n"
        "points['review'].decide(np.zeros(3)); points['strict'].line\n"
        "calibrator_from_dict({'kind': 'beta', 'a': 1.0, 'b': 2.0, 'c': 0.0}).probabilities(np.zeros(3))\n"
        "print([name for name in ('torch', 'sklearn', 'scipy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
