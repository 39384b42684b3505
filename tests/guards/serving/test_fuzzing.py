"""Requests that are wrong: ours (see `fuzzing`), and those schemathesis makes of the OpenAPI document."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from guardtrain.guards.guard import Guard
from tests.guards.serving.fuzzing import fuzz

schemathesis = pytest.importorskip("schemathesis")

PROFILE = settings.default  # `make fuzz` has another: more requests, and new ones each time


def test_no_request_makes_the_server_fail(address: str, guard: Guard, files: list[bytes]) -> None:
    parts = urlsplit(address)
    assert parts.hostname and parts.port
    expected = guard.predict(files).probabilities.tolist()
    statuses = fuzz((parts.hostname, parts.port), files, expected, guard.dim, 300)
    assert {200, 400, 413, 415, 422} <= set(statuses)


@pytest.mark.hypothesis  # so that `make fuzz` runs it: the properties are inside
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/guard", "/healthz", "/readyz", "/metrics"])
def test_answers_are_as_the_document_says(address: str, path: str) -> None:
    from schemathesis import GenerationMode, checks, openapi

    operation = openapi.from_url(f"{address}/openapi.json")[path]["POST" if path == "/v1/predict" else "GET"]
    wanted = [
        checks.not_a_server_error,
        *checks.CHECKS.get_by_names(
            ["status_code_conformance", "content_type_conformance", "response_schema_conformance", "unsupported_method"]
        ),
    ]
    examples = 60 if path == "/v1/predict" else 5
    if not PROFILE.derandomize:
        examples = max(examples, PROFILE.max_examples)
    seen: list[int] = []
    for mode in GenerationMode:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=PROFILE.derandomize,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def asked(case: Any) -> None:
            response = case.call()
            case.validate_response(response, checks=wanted)
            seen.append(response.status_code)

        try:
            asked()
        except Exception as error:
            if type(error).__name__ not in ("Unsatisfiable", "SkipTest", "InvalidArgument"):
                raise
    assert set(seen) >= ({200, 422} if path == "/v1/predict" else {200})


@given(st.binary(max_size=300), st.sampled_from(["application/json", "multipart/form-data; boundary=b", "text/plain"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_get_an_answer(address: str, body: bytes, kind: str) -> None:
    import httpx

    response = httpx.post(f"{address}/v1/predict", content=body, headers={"content-type": kind}, timeout=60)
    assert response.status_code in (400, 415, 422)
    assert response.json()["status"] == response.status_code
