"""What all tests share: threads, no network, a cache of their own, the real data if it is there, random examples."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

# Each of the two test processes has one core; BLAS in several threads each would slow both.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

ROOT = Path(__file__).parent.parent

# `fixed` draws the same examples every time, so that a failure is of the change it is seen with, and on no machine a
# matter of speed. `explore` draws new ones, and keeps those that fail (in .hypothesis/) to try them first next time.
_NO_CLOCK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", max_examples=50, derandomize=True, database=None, **_NO_CLOCK)
settings.register_profile(
    "explore", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "500")), print_blob=True, **_NO_CLOCK
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "fixed")
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make the profile hold for tests with settings of their own, and start files with long tests first.

    In `explore` no fewer examples than it asks for, and no clock. A file's tests run in one process, where its fixtures
    are made once; those marked `long` start first, for no process to wait at the end for another.
    """
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        test = getattr(item, "obj", None)
        if not is_hypothesis_test(test):
            continue
        own = test._hypothesis_internal_use_settings  # what Hypothesis's pytest plugin reads, too
        most = max(own.max_examples, settings.default.max_examples) if PROFILE == "explore" else own.max_examples
        checks = {*own.suppress_health_check, HealthCheck.too_slow}
        test._hypothesis_internal_use_settings = settings(own, max_examples=most, suppress_health_check=list(checks))


@pytest.fixture(autouse=True)
def open_log_handlers() -> Iterator[None]:
    """Commands run in a test leave log handlers on that test's output: none of them may meet the next test's log."""
    yield
    for handler in list(logging.root.handlers):
        if isinstance(handler, logging.StreamHandler) and getattr(handler.stream, "closed", False):
            logging.root.removeHandler(handler)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What draws numbers without a seed of its own draws the same ones in every run, in whatever order tests come."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' cache, empty at the start of the tests, one for all their processes, and never the user's own."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all processes of this run; what each embeds, the others need not
    folder = folder / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["GUARDTRAIN_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data (`GUARDTRAIN_DATA`, else `../shared/data`); the test is skipped without it."""
    folder = Path(os.environ.get("GUARDTRAIN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not here; set GUARDTRAIN_DATA to its folder")
    return folder
