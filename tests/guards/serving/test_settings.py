from __future__ import annotations

import pytest

from guardtrain.config import ServeConfig
from guardtrain.errors import ConfigError
from guardtrain.guards.serving.settings import ServeSettings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": 70000}, "port must be a number from 0 to 65535"),
        ({"max_batch": 0}, "max_batch must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0"),
        ({"threads": 0}, "threads must be at least 1, or null"),
        ({"max_wait_ms": -1.0}, "max_wait_ms must be 0 or more"),
        ({"max_images": 300}, "max_queue is 256, too small for one request of max_images=300"),
        ({"max_megapixels": 64.0, "max_request_megapixels": 50.0}, "max_request_megapixels is 50, too small"),
        ({"max_connections": 0}, "max_connections must be above 0"),
        ({"headers_s": 0.0}, "headers_s must be above 0"),
        ({"max_body_mb": 300.0}, "max_buffered_mb is 256, too small"),
    ],
)
def test_limits_that_make_no_sense_are_refused(settings: dict[str, float], said: str) -> None:
    for kind in (ServeSettings, ServeConfig):
        with pytest.raises(ConfigError, match=said):
            kind(guard="g", **settings)  # type: ignore[arg-type]
