"""`guardtrain serve` up to where it listens; `tests/guards/serving` has the rest."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from guardtrain.guards.base_rates import shift
from guardtrain.guards.guard import Guard
from guardtrain.guards.serving import running
from guardtrain.guards.serving.app import described
from tests.guards.serving.conftest import guard_folder

__all__ = ["guard_folder"]


def test_it_serves_the_guard_as_set(run, guard_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []

    def instead(app: FastAPI, service: Any, started: Any) -> None:
        started("http://here")
        served.append((app, service))

    monkeypatch.setattr(running, "serve", instead)
    text = run("serve", f"guard={guard_folder}", "port=0", "max_batch=3", "page=false", "prior=0.02")
    assert "serving   http://here" in text
    assert "on demo; probabilities where 2 % of images are unsafe\n" in text
    assert "points    strict, balanced, permissive" in text
    ((app, service),) = served
    settings, plain = service.settings, Guard.load(guard_folder)
    (answer,) = (point.thresholds for point in described(service).points if point.default)
    limit = np.array([plain.points[plain.default_point].threshold])
    assert service.guard.prior == described(service).about["prior"] == 0.02
    moved = plain.calibrator.moved(shift(plain.prior, 0.02))
    np.testing.assert_allclose(answer, moved.probabilities(limit))
    assert (settings.max_batch, settings.port, settings.page) == (3, 0, False)
    assert "/" not in {getattr(route, "path", None) for route in app.routes}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("port=-1", "port must be a number"),
        ("max_batch=0", "max_batch must be above 0"),
        ("max_bach=1", "no setting 'max_bach'. Did you mean 'max_batch'?"),
        ("guard=./nowhere", "nowhere"),
        ("host=no.such.host.invalid", "Cannot listen on no.such.host.invalid"),
    ],
)
def test_what_is_wrong_is_named(run, guard_folder: Path, setting: str, said: str) -> None:
    text = run("serve", f"guard={guard_folder}", setting, code=2)
    assert said in text
    assert "Traceback" not in text


def test_a_port_that_is_taken_is_named(run, guard_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Cannot listen on 127.0.0.1 port {port}" in run(
            "serve", f"guard={guard_folder}", f"port={port}", code=2
        )
