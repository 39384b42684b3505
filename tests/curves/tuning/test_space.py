from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.curves.tuning.space import _kept, grid, kept_text, read_space, setting_text
from guardtrain.errors import ConfigError

_PARSER = OverridesParser.create()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a1 ,'[]{}:=$\\", max_size=8),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_hydra_reads_a_setting_as_it_was(value: Any) -> None:
    assert _read(setting_text(value)) == value
    assert _read(kept_text(_kept(value))) == value


def _read(text: str) -> Any:
    return _plain(_PARSER.parse_override(f"x={text}").value())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return getattr(value, "text", value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (None, "space must be a mapping"),
        ({}, "space is empty"),
        ({"loss.l2": 3}, "space.loss.l2 is 3; it must be {low: …, high: …} or {choices"),
        ({"loss.l2": {"lo": 1, "high": 2}}, "no setting 'space.loss.l2.lo'. Did you mean 'low'?"),
        ({"loss.l2": {"low": 1}}, "space.loss.l2.high must be a number; it is None"),
        ({"loss.l2": {"low": 2, "high": 1}}, "low is 2, which is not below high, 1"),
        ({"loss.l2": {"low": 0, "high": 1, "log": True}}, "on a log scale it must be above 0"),
        ({"loss.l2": {"choices": []}}, "at least one value"),
        ({"loss.l2": {"choices": [1, 1]}}, "lists a value twice"),
        ({"loss.l2": {"choices": [1], "low": 0}}, "has choices and low"),
        ({"optimizer.steps": {"low": 1.5, "high": 9}}, "is a whole number"),
        ({"head.hidden": {"choices": [[4]], "when": {"head": "mlp"}}}, "space.head.hidden.when names head"),
    ],
)
def test_wrong_spaces_are_named(space: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space(space, ["optimizer.steps"])
    assert message in str(caught.value)


def test_a_grid_has_every_point_once_and_conditions_hold_in_it() -> None:
    space = read_space(
        {
            "head.hidden": {"choices": [[4], [8, 4]], "when": {"head": "mlp"}},
            "head": {"choices": ["linear", "mlp"]},
            "optimizer.steps": {"low": 1, "high": 3},
        },
        ["optimizer.steps"],
    )
    points = grid(space)
    assert [p.name for p in space] == ["head", "optimizer.steps", "head.hidden"]
    assert len(points) == 3 + 2 * 3
    assert all(("head.hidden" in point) == (point["head"] == "mlp") for point in points)
    assert {kept_text(point["head.hidden"]) for point in points if "head.hidden" in point} == {"[4]", "[8,4]"}
