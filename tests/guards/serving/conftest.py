from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guardtrain.guards.guard import Guard
from guardtrain.guards.predicting import ImageJudge
from guardtrain.guards.serving.app import create_app
from guardtrain.guards.serving.running import server_of
from guardtrain.guards.serving.service import GuardService
from guardtrain.guards.serving.settings import ServeSettings
from tests.guards.serving.small_guard import image_files, write_small_guard


@pytest.fixture(scope="session")
def guard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_guard(tmp_path_factory.mktemp("guards") / "scenes")


@pytest.fixture(scope="session")
def guard(guard_folder: Path) -> Guard:
    return Guard.load(guard_folder, device="cpu")


@pytest.fixture(scope="session")
def files() -> list[bytes]:
    return image_files(12)


@pytest.fixture(scope="session")
def service(guard: Guard) -> GuardService:
    """With limits that tests can reach."""
    settings = ServeSettings(guard="scenes", threads=1, max_body_mb=1.0, max_megapixels=4.0, timeout_s=5.0)
    return GuardService(ImageJudge(guard, 4_000_000), settings)


@pytest.fixture(scope="session")
def address(service: GuardService) -> Iterator[str]:
    """Of the service behind a real server on this machine."""
    with served(service) as (host, port):
        yield f"http://{host}:{port}"


@contextmanager
def served(service: GuardService) -> Iterator[tuple[str, int]]:
    """Host and port of the service behind a real server, in a thread."""
    server = server_of(create_app(service), service)
    server.config.host, server.config.port = "127.0.0.1", 0
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = True
    thread.join()
