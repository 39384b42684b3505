from __future__ import annotations

from pathlib import Path

import pytest

from guardtrain.guards.guard import Guard
from tests.benchmarks.attacks.guards import attacked_guard


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """See `attacked_guard`."""
    return Guard.load(attacked_guard(tmp_path_factory.getbasetemp()), device="cpu")


@pytest.fixture(scope="session")
def scenes_guard(loaded: Guard) -> Path:
    """Its folder."""
    return loaded.path
