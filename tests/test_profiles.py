"""Property tests in `make test`: the same examples every time, and no clock that a slow machine could fail by."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, is_hypothesis_test

from tests.conftest import PROFILE


@pytest.mark.skipif(PROFILE != "fixed", reason="random examples were asked for")
def test_property_tests_depend_on_neither_chance_nor_speed(request: pytest.FixtureRequest) -> None:
    tests = {item.nodeid: item.obj for item in request.session.items if is_hypothesis_test(getattr(item, "obj", None))}
    for name, test in tests.items():
        own = test._hypothesis_internal_use_settings
        assert own.derandomize and own.database is None, name
        assert own.deadline is None, name
        assert HealthCheck.too_slow in own.suppress_health_check, name
