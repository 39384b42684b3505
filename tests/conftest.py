"""What all tests share: a deliberate thread count, no network, a cache of their own, the real data if it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Each of the two test processes has one core; BLAS in several threads each would slow both.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' cache, empty at the start of the tests and never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["GUARDTRAIN_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data (`GUARDTRAIN_DATA`, else `../shared/data`); the test is skipped without it."""
    folder = Path(os.environ.get("GUARDTRAIN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not here; set GUARDTRAIN_DATA to its folder")
    return folder
