from __future__ import annotations

import pytest

from guardtrain.errors import ConfigError
from guardtrain.guards.settings import CalibrationSettings, CategorySettings, GuardSettings, ReviewSettings
from guardtrain.guards.thresholds import DEFAULT_RULES
from guardtrain.guards.thresholds_rules import Rule


def test_points_of_a_config() -> None:
    settings = GuardSettings(points={"a": {"kind": "recall", "target": 0.9}, "b": {"target": 0.2}})
    assert settings.rules() == {"a": Rule("recall", 0.9), "b": Rule("fpr", 0.2)}
    assert settings.default == "a"
    assert GuardSettings(points=settings.points, default_point="b").default == "b"


def test_no_points_are_the_usual_ones() -> None:
    assert GuardSettings().rules() == DEFAULT_RULES
    assert GuardSettings().default == "balanced"


def test_the_three_way_point_can_be_the_default() -> None:
    settings = GuardSettings(review=ReviewSettings(enabled=True), default_point="review")
    settings.rules()
    assert settings.default == "review"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"points": {"a": {"kind": "fnr"}}}, r"points\.a: .*fpr, recall, precision, cost"),
        ({"points": {"a": {"goal": 0.1}}}, r"points\.a: there is no 'goal'; allowed: kind, target"),
        ({"points": {"a": 0.1}}, r"points\.a: a mapping with kind"),
        ({"points": {"a": {"target": "much"}}}, r"points\.a"),
        ({"points": {"a": {"target": 2}}}, r"points\.a: .*between 0 and 1"),
        ({"default_point": "mine"}, "'mine'; there are: strict, balanced, permissive"),
        ({"default_point": "review"}, "'review'; there are"),
        ({"category_points": CategorySettings(kind="x")}, "'x'"),
        ({"validation_limit": 1}, "at least 2"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_rule_is_refused_by_name(given: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GuardSettings(**given).rules()


@pytest.mark.parametrize(
    "given", [{"kinds": []}, {"kinds": ["plat"]}, {"score": "ece"}, {"folds": 1}, {"replicates": 0}], ids=str
)
def test_calibration_that_is_none(given: dict) -> None:
    with pytest.raises(ConfigError, match=r"calibration\."):
        CalibrationSettings(**given)
