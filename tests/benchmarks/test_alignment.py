"""What published guards are judged on unless their user says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from guardtrain.benchmarks.alignment import declared_categories, matched, require_there
from guardtrain.benchmarks.beside import known_as
from guardtrain.benchmarks.kinds import LaionNsfw, MultiHeaded, SafetyChecker
from guardtrain.errors import ConfigError

MULTIHEADED = MultiHeaded.origin.url


@pytest.mark.parametrize(
    ("about", "wanted", "known"),
    [
        ({"taxonomy": {"categories": ["fire"]}, "training": {"url": MULTIHEADED}}, (), None),
        (
            {"imported": {"files": {"sexual.pt": "0", "hateful.pt": "1"}}, "training": {"url": MULTIHEADED}},
            ("Sexual", "Hate"),
            "MultiHeaded",
        ),
        (
            {"imported": {}, "taxonomy": {"categories": ["Sexual"]}, "training": {"url": LaionNsfw.origin.url}},
            (),
            None,
        ),
        (
            {
                "imported": {"files": {}},
                "taxonomy": {"categories": ["Sexual"]},
                "training": {"url": LaionNsfw.origin.url},
            },
            ("Sexual",),
            "NSFW_Detector",
        ),
        ({"imported": {"files": {"a.pt": "0"}}, "training": {"url": "mine"}}, (), None),
        ({"imported": {"files": {}}, "training": {"url": SafetyChecker.origin.url}}, (), "SD_Filter"),
    ],
    ids=["own", "heads", "not-imported", "laion", "state-dict", "checker"],
)
def test_published_guards_declare_what_they_judge(
    about: dict[str, Any], wanted: tuple[str, ...], known: str | None
) -> None:
    assert declared_categories(about) == wanted
    assert known_as(about) == known


def test_categories_match_whatever_their_spelling() -> None:
    there = ["Hate", "self harm", "SEXUAL"]
    assert matched(["Sexual", "Self-harm", "Spam"], there) == ("self harm", "SEXUAL")
    assert matched([], there) == ()


def test_categories_that_no_data_set_has_are_named_with_their_neighbour() -> None:
    there = ["Self-Harm", "Hate"]
    require_there("categories of mine", ["self harm", "HATE", "Spam?"], there)  # as they are matched, in any spelling
    with pytest.raises(ConfigError, match=r"categories of mine names 'Self-Hrm', .* Did you mean 'Self-Harm'\? They"):
        require_there("categories of mine", ["Hate", "Self-Hrm"], there)
    with pytest.raises(ConfigError, match=r"real names 'web', which no data set has\. They have: none\."):
        require_there("real", ["web"], [])
