"""The service's answers, compared with the guard asked directly, and what it says of requests that are wrong."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from guardtrain.guards.guard import Guard
from guardtrain.guards.predicting import ImageJudge
from guardtrain.guards.serving.app import create_app
from guardtrain.guards.serving.service import GuardService
from guardtrain.guards.serving.settings import ServeSettings
from tests.guards.serving.small_guard import POINTS
from tests.sources.animations import animation, tiny_gif, two_eyes

Files = list[tuple[str, tuple[str, bytes]]]
Post = Callable[..., Any]


@pytest.fixture
def serving(guard: Guard) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of a service with these settings."""
    clients: list[TestClient] = []

    def make(**settings: Any) -> TestClient:
        made = ServeSettings(**{"guard": "scenes", "threads": 1, "decode_threads": 2} | settings)
        service = GuardService(ImageJudge(guard, round(made.max_megapixels * 1e6), made.frames), made)
        client = TestClient(create_app(service))
        client.__enter__()
        client.service = service  # type: ignore[attr-defined]
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def parts(files: list[bytes], name: str = "image") -> Files:
    return [(name, (f"{i}.img", content)) for i, content in enumerate(files)]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(width: int, height: int, rows: bytes | None = None) -> bytes:
    """A PNG whose header says this size; grey, and as small as zlib makes it."""
    data = zlib.compress(bytes((width + 1) * height), 9) if rows is None else rows
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("form", [True, False], ids=["multipart", "json"])
@pytest.mark.parametrize("point", [None, "strict", "review"])
def test_answers_are_the_guards_own(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes], form: bool, point: str | None
) -> None:
    client = serving(max_batch=5)
    fields = {} if point is None else {"point": point}
    if form:
        response = client.post("/v1/predict", files=parts(files), data={**fields, "explain": "3"})
    else:
        images = [{"id": f"{i}.img", "data": encoded(content)} for i, content in enumerate(files)]
        response = client.post("/v1/predict", json={"images": images, "explain": 3, **fields})
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = guard.predict(files, point=point, explain=3)
    assert answer["point"] == expected.point
    results = answer["results"]
    assert [result["id"] for result in results] == [f"{i}.img" for i in range(len(files))]
    assert [result["probability"] for result in results] == pytest.approx(expected.probabilities, abs=1e-5)
    assert [result["decision"] for result in results] == list(expected.decision)
    for name in POINTS:
        assert [result["decisions"][name] for result in results] == list(guard.predict(files, point=name).decision)
    assert [result["category"] for result in results] == list(expected.category or ())
    shares = [list(result["category_probabilities"].values()) for result in results]
    np.testing.assert_allclose(shares, expected.category_probabilities, atol=1e-5)
    assert set(results[0]["category_probabilities"]) == set(expected.category_names)
    assert expected.neighbours is not None
    for result, near in zip(results, expected.neighbours, strict=True):
        assert [one["id"] for one in result["neighbours"]] == [one.id for one in near]
        assert [one["similarity"] for one in result["neighbours"]] == pytest.approx(
            [o.similarity for o in near], abs=1e-5
        )


@pytest.mark.parametrize("frames", ["8", "first"])
def test_animations_are_judged_by_their_likeliest_frame(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes], frames: str
) -> None:
    scenes = [Image.open(io.BytesIO(content)).convert("RGB").resize((64, 64)) for content in files]
    order = np.argsort(guard.predict(scenes).probabilities)
    moving = animation("GIF", [*(scenes[i] for i in order[:6]), scenes[order[-1]]])
    client = serving(frames=frames)
    response = client.post("/v1/predict", files=parts([files[0], moving, tiny_gif(500, side=4000), two_eyes()]))
    still, found, long, eyes = response.json()["results"]
    assert response.status_code == 200
    expected = guard.predict(moving, frames=frames)
    assert found["probability"] == pytest.approx(expected.probabilities[0], abs=1e-5)
    assert found["decision"] == expected.decision[0]
    told = [[result[key] for key in ("frame", "frames", "frames_judged")] for result in (still, found, eyes)]
    assert told == [[None, 1, 1], [6, 7, 7] if frames == "8" else [0, 7, 1], [None, 1, 1]]
    if frames == "8":
        assert "an animation too long to go through: 500 frames, 4000 × 4000 pixels" in long["error"]
        assert [long[key] for key in ("frame", "frames", "frames_judged")] == [None, None, None]
    else:
        assert (long["frames"], long["error"]) == (500, None)
    assert client.get("/v1/guard").json()["frames"] == frames


def test_embeddings_are_judged_as_they_are(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes]
) -> None:
    judge = ImageJudge(guard)
    x = judge.embed([judge.pixels(content) for content in files])
    client = serving()
    asked = {"embeddings": x.tolist(), "point": "permissive", "fingerprint": guard.spec.fingerprint}
    answer = client.post("/v1/predict", json=asked).json()
    assert [r["probability"] for r in answer["results"]] == pytest.approx(guard.probabilities(x), abs=1e-6)
    assert [r["decision"] for r in answer["results"]] == list(guard.predict(x, point="permissive").decision)


def test_an_image_that_cannot_be_read_does_not_spoil_the_others(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes]
) -> None:
    broken = [b"", b"<html>", files[0][: len(files[0]) // 2], png(40, 40, b"no zlib")]
    response = serving().post("/v1/predict", files=parts([broken[0], files[1], *broken[1:], files[2]]))
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result["error"] is None for result in results] == [False, True, False, False, False, True]
    read = [result["probability"] for result in results if result["error"] is None]
    assert read == pytest.approx(guard.predict(files[1:3]).probabilities, abs=1e-5)
    assert results[0]["error"] == "the file is empty"
    assert {result["decision"] for result in results if result["error"]} == {None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"%PDF-1.4 nothing", "not an image of a known format"),
        (png(9_000, 9_000), "too large to decode (9000 × 9000 pixels; the limit is 64,000,000 pixels)"),
        (png(30_000, 30_000), "too large"),
        (png(60_000, 10), "ratio"),
        (b"\xff\xd8\xff\xe0", "not an image"),
    ],
    ids=["empty", "pdf", "large", "bomb", "line", "jpeg"],
)
def test_images_that_cannot_be_read_are_the_clients(
    serving: Callable[..., TestClient], content: bytes, reason: str
) -> None:
    response = serving().post("/v1/predict", files=parts([content]))
    if reason == "ratio":  # 6,000 : 1 may be scaled or refused, but is no fault of ours
        assert response.status_code in (200, 422)
        return
    assert response.status_code == 422
    assert reason in response.json()["detail"]
    assert response.json()["where"] == "images[0]"
    assert response.headers["content-type"] == "application/problem+json"


def test_a_request_of_many_large_images_is_refused_before_one_is_decoded(
    serving: Callable[..., TestClient], files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving(max_megapixels=10.0, max_request_megapixels=25.0)
    large = png(3000, 3000)
    assert client.post("/v1/predict", files=parts([large, large])).status_code == 200
    # what is refused by itself, or is no image, is not decoded and so does not count
    mixed = client.post("/v1/predict", files=parts([large, large, png(9_000, 9_000), b"?"]))
    assert [result["error"] is None for result in mixed.json()["results"]] == [True, True, False, False]
    decoded: list[bytes] = []
    monkeypatch.setattr(client.service.judge, "look", decoded.append)  # type: ignore[attr-defined]
    for asked in (
        {"files": parts([large, large, large, files[0]])},
        {"json": {"images": [{"data": encoded(large)}] * 3}},
    ):
        refused = client.post("/v1/predict", **asked)
        assert refused.status_code == 413
        assert refused.headers["content-type"] == "application/problem+json"
        assert "images have 27 megapixels together; the most of one request is 25" in refused.json()["detail"]
    moving = client.post("/v1/predict", files=parts([tiny_gif(3, side=3000)]))
    assert moving.status_code == 413
    assert "The image has 27 megapixels together" in moving.json()["detail"]
    assert decoded == []


def test_a_jpeg_of_endless_scans_is_refused(serving: Callable[..., TestClient], files: list[bytes]) -> None:
    jpeg = next(content for content in files if content.startswith(b"\xff\xd8"))
    bomb = jpeg[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 1000 + b"\xff\xd9"
    response = serving().post("/v1/predict", files=parts([bomb]))
    assert response.status_code == 422
    assert "1001 scans" in response.json()["detail"]


JSON_FAULTS: list[tuple[Any, int, str]] = [
    (b"{", 400, "no JSON"),
    (b"", 400, "no JSON"),
    (b"[" * 100_000, 400, "no JSON"),
    (b'"\xff"', 400, "no JSON"),
    (b'{"embeddings": [[NaN]]}', 422, "finite"),
    (b'{"embeddings": [[1e999]]}', 422, "finite"),
    (b'{"embeddings": [[' + b"9" * 5000 + b"]]}", 400, "out of range"),
    ({"embeddings": [[1.0, 2.0]]}, 422, "256"),
    ({"embeddings": [[0.5] * 256]}, 422, "unit norm"),
    ({"embeddings": [[0.0] * 256]}, 422, "unit norm"),
    ({"embeddings": [[1.0], [1.0, 2.0]]}, 422, "1 and 2 dimensions"),
    ({"embeddings": [[]]}, 422, "embeddings[0]"),
    ({"embeddings": []}, 422, "embeddings"),
    ({"embeddings": [["1.0"]]}, 422, "embeddings[0][0]"),
    ({"embeddings": [[True]]}, 422, "embeddings[0][0]"),
    ({"embeddings": [[1.0]] * 33}, 422, "33 images in one request; the most is 32"),
    ({"embeddings": [[1.0]], "fingerprint": "other"}, 422, "another fingerprint"),
    ({"embeddings": [[1.0]], "images": [{"data": ""}]}, 422, "either `images` or `embeddings`"),
    ({}, 422, "either `images` or `embeddings`"),
    (None, 422, "the body"),
    ([], 422, "the body"),
    ({"images": [{"data": "***"}]}, 422, "not base64"),
    ({"images": [{"data": "AAA"}]}, 422, "not base64"),
    ({"images": [{"data": "é"}]}, 422, "not base64"),
    ({"images": [{"data": ""}]}, 422, "the file is empty"),
    ({"images": [{"dada": "AAAA"}]}, 422, "images[0]"),
    ({"images": [{"data": "AAAA"}], "colour": 1}, 422, "colour"),
    ({"images": [{"data": "AAAA"}], "fingerprint": "x"}, 422, "goes with embeddings"),
    ({"images": [{"data": "AAAA"}], "point": "lax"}, 422, "no operating point 'lax'; this guard has: strict"),
    ({"images": [{"data": "AAAA"}], "point": ""}, 422, "no operating point ''"),
    ({"images": [{"data": "AAAA"}], "explain": 11}, 422, "from 0 to 10"),
    ({"images": [{"data": "AAAA"}], "explain": -1}, 422, "explain"),
    ({"images": [{"data": "AAAA"}], "explain": 1.5}, 422, "explain"),
    ({"images": [{"data": "AAAA"}], "explain": 10**30}, 422, "explain"),
]


@pytest.mark.parametrize(("body", "status", "said"), JSON_FAULTS, ids=range(len(JSON_FAULTS)))
def test_json_that_is_wrong_is_told(serving: Callable[..., TestClient], body: Any, status: int, said: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = serving().post("/v1/predict", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert said in response.json()["detail"]
    assert len(response.content) < 2000  # what was sent is not sent back


def form(*lines: str, end: str = "--b--\r\n") -> bytes:
    return ("".join(f"{line}\r\n" for line in lines) + end).encode("latin-1")


FILE = 'Content-Disposition: form-data; name="image"; filename="a"'
FORM = "multipart/form-data; boundary=b"
FORM_FAULTS: list[tuple[str, bytes, int, str]] = [
    (FORM, form("--b", FILE, "", "x", end=""), 400, "ends before its closing boundary"),
    (FORM, form("--b", FILE, "", "x", end="--b"), 400, "ends before its closing boundary"),
    (FORM, form("--b", FILE, end=""), 400, "ends before"),
    (FORM, b"", 400, "ends before"),
    (FORM, b"\x00\xff" * 50, 400, "cannot be read"),
    (FORM, form(), 422, "no file"),
    (FORM, form("--b", 'Content-Disposition: form-data; name="point"', "", "strict"), 422, "no file"),
    (FORM, form("--b", 'Content-Disposition: form-data; name="pic"; filename="a"', "", "x"), 422, "called 'image'"),
    (FORM, form("--b", 'Content-Disposition: form-data; name="colour"', "", "x"), 422, "'point' and 'explain'"),
    (FORM, form("--b", "Content-Disposition: form-data", "", "x"), 400, "must be provided"),
    (FORM, form("--b", 'Content-Disposition: form-data; name="point"', "", "x" * 5000), 422, "maximum size"),
    (FORM, form(*["--b", FILE, "", "x"] * 33), 422, "Too many files"),
    (FORM, form(*["--b", 'Content-Disposition: form-data; name="point"', "", "strict"] * 2), 422, "given once"),
    (
        FORM,
        form("--b", 'Content-Disposition: form-data; name="explain"', "", "1e3", "--b", FILE, "", "x"),
        422,
        "whole",
    ),
    ("multipart/form-data", form("--b", FILE, "", "x"), 400, "boundary"),
    ("multipart/form-data; boundary=" + "b" * 300, form("--b", FILE, "", "x"), 400, "cannot be read"),
    ("text/plain", b"hello", 415, "text/plain"),
    ("image/png", b"hello", 415, "image/png"),
    ("", b"hello", 415, "missing"),
    ("application/json; charset=\xe9", b"{}", 422, "either"),
]


@pytest.mark.parametrize(("kind", "body", "status", "said"), FORM_FAULTS, ids=range(len(FORM_FAULTS)))
def test_forms_that_are_wrong_are_told(
    serving: Callable[..., TestClient], kind: str, body: bytes, status: int, said: str
) -> None:
    response = serving().post("/v1/predict", content=body, headers={"content-type": kind.encode("latin-1")})
    assert response.status_code == status, response.text
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda mark: {"files": parts([mark])},
        lambda mark: {"files": parts([mark, png(40, 40)])},
        lambda mark: {"files": parts([png(40, 40)[:16] + mark + png(40, 40)[16:]])},
        lambda mark: {"files": [(mark.decode("latin-1"), ("a", b"x"))]},
        lambda mark: {"files": parts([png(40, 40)]), "data": {"point": mark.decode("latin-1")}},
        lambda mark: {"files": parts([png(40, 40)]), "data": {"explain": mark.decode("latin-1")}},
        lambda mark: {"json": {"images": [{"data": encoded(mark)}]}},
        lambda mark: {"json": {"images": [{mark.decode("latin-1"): 1}]}},
        lambda mark: {"json": {"images": [{"data": mark.decode("latin-1")}]}},
        lambda mark: {"json": {"embeddings": [[mark.decode("latin-1")]]}},
        lambda mark: {"content": mark, "headers": {"content-type": "application/json"}},
        lambda mark: {"content": b"--b" + mark, "headers": {"content-type": FORM}},
        lambda mark: {"content": form("--b", FILE) + mark, "headers": {"content-type": FORM}},
        lambda mark: {"content": b"x", "headers": {"content-type": b"text/" + mark}},
        lambda mark: {"params": {"point": mark.decode("latin-1")}, "files": parts([png(40, 40)])},
        lambda mark: {"params": {"explain": mark.decode("latin-1")}, "files": parts([png(40, 40)])},
    ],
    ids=range(16),
)
def test_what_was_sent_is_not_sent_back(serving: Callable[..., TestClient], ask: Callable[[bytes], Any]) -> None:
    mark = b"\x9f<\xe9'\"\xb6\xff"
    response = serving().post("/v1/predict", **ask(mark))
    assert response.status_code in (200, 400, 415, 422)
    told = response.json()
    for text in (response.text, str(told)):
        for i in range(len(mark) - 1):
            two = mark[i : i + 2]
            for seen in (two.decode("latin-1"), repr(two)[2:-1], json.dumps(two.decode("latin-1"))[1:-1]):
                assert seen not in text, (seen, text)
    assert not re.search(r"\bb['\"]", response.text)


def test_point_and_explain_may_stand_in_the_query(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes]
) -> None:
    client = serving()
    answer = client.post("/v1/predict?point=strict&explain=2", files=parts(files[:1])).json()
    assert answer["point"] == "strict"
    assert len(answer["results"][0]["neighbours"]) == 2
    for query in ("point=lax", "point=", "explain=-1", "explain=x", "explain=99"):
        assert client.post(f"/v1/predict?{query}", files=parts(files[:1])).status_code == 422, query
    contradicting = client.post("/v1/predict?point=strict", files=parts(files[:1]), data={"point": "balanced"})
    assert contradicting.status_code == 422
    assert "different values of `point`" in contradicting.json()["detail"]


def test_a_guard_without_training_images_cannot_explain(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(guard.about["files"], "neighbours.safetensors", None)  # put back at the end
    monkeypatch.delitem(guard.about["files"], "neighbours.safetensors")  # type: ignore[arg-type]
    monkeypatch.setattr(guard, "_neighbours", None)
    client = serving()
    assert client.get("/v1/guard").json()["explains"] is False
    response = client.post("/v1/predict", files=parts(files[:2]), data={"explain": "2"})
    assert response.status_code == 422
    assert "explain=0" in response.json()["detail"]
    assert client.post("/v1/predict", files=parts(files[:2])).status_code == 200


def test_bodies_over_the_limit_are_not_read(serving: Callable[..., TestClient], files: list[bytes]) -> None:
    client = serving(max_body_mb=0.1, max_buffered_mb=0.15)
    declared = client.post("/v1/predict", files=parts([bytes(200_000)]))
    assert declared.status_code == 413
    assert "0.1 MB" in declared.json()["detail"]

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(1000)

    streamed = client.post("/v1/predict", content=endless(), headers={"content-type": "application/json"})
    assert streamed.status_code == 413
    assert client.service.buffers.held == 0  # type: ignore[attr-defined]
    client.service.buffers.held = 149_990  # type: ignore[attr-defined]  # of other requests
    crowded = client.post("/v1/predict", files=parts(files[:1]))
    assert crowded.status_code == 429
    assert crowded.headers["retry-after"] == "1"
    assert client.service.buffers.held == 149_990  # type: ignore[attr-defined]


def test_a_full_queue_and_a_slow_answer_say_when_to_come_back(
    serving: Callable[..., TestClient], files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving(max_queue=2, max_images=2, max_batch=1)
    service = client.service  # type: ignore[attr-defined]
    patient = service.settings
    service.settings = replace(patient, timeout_s=0.2)  # of answers alone: requests still arrive in their own time
    held = threading.Event()
    judge = service.judge.judge
    monkeypatch.setattr(service.judge, "judge", lambda *a: (held.wait(30), judge(*a))[1])
    slow = client.post("/v1/predict", files=parts(files[:2]))
    assert (slow.status_code, slow.headers["retry-after"]) == (503, "1")
    assert "within 0.2 seconds" in slow.json()["detail"]
    # the one that is being worked on still takes a place, the cancelled one none
    full = client.post("/v1/predict", files=parts(files[:2]))
    assert (full.status_code, full.headers["retry-after"]) == (429, "1")
    held.set()
    while service.batcher.waiting:
        time.sleep(0.001)
    service.settings = patient
    assert client.post("/v1/predict", files=parts(files[:2])).status_code == 200


def test_a_fault_of_ours_is_a_500_that_tells_nothing(
    serving: Callable[..., TestClient], guard: Guard, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serving().service  # type: ignore[attr-defined]
    client = TestClient(create_app(service), raise_server_exceptions=False)
    monkeypatch.setattr(service.judge, "embed", lambda pixels: 1 / 0)
    response = client.post("/v1/predict", files=parts(files[:2]))
    assert response.status_code == 500
    assert "division" not in response.text


def test_it_ends_by_answering_that_it_takes_no_more(serving: Callable[..., TestClient], files: list[bytes]) -> None:
    client = serving()
    assert client.get("/readyz").json() == {"status": "ready"}
    client.service.batcher.close(30)  # type: ignore[attr-defined]
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.post("/v1/predict", files=parts(files[:1])).status_code == 503


def test_what_the_guard_is(serving: Callable[..., TestClient], guard: Guard) -> None:
    told = serving().get("/v1/guard").json()
    assert [point["name"] for point in told["points"]] == POINTS
    assert [point["name"] for point in told["points"] if point["default"]] == [guard.default_point]
    assert told["encoder"]["fingerprint"] == guard.spec.fingerprint
    assert guard.category_head is not None
    assert told["categories"] == list(guard.category_head.names)
    assert told["about"]["training"] == guard.about["training"]
    assert told["limits"] == {
        "max_images": 32,
        "max_body_mb": 32.0,
        "max_megapixels": 64.0,
        "max_request_megapixels": 400.0,
        "max_explain": 10,
        "timeout_s": 30.0,
    }
    assert isinstance(told["limits"]["max_images"], int)
    three = told["points"][POINTS.index("review")]
    point = guard.points["review"]
    logits = np.array([point.lower, point.upper])  # type: ignore[union-attr]
    assert three["thresholds"] == pytest.approx(guard.calibrator.probabilities(logits))


def test_metrics_count_what_happened(serving: Callable[..., TestClient], files: list[bytes]) -> None:
    client = serving()
    answer = client.post("/v1/predict", files=parts([*files[:5], b"?"])).json()
    client.post("/v1/predict", content=b"{", headers={"content-type": "application/json"})
    client.get("/wp-login.php")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    requests = "guardtrain_requests_total"
    assert samples[requests, ("route", "/v1/predict"), ("status", "200")] == 1
    assert samples[requests, ("route", "/v1/predict"), ("status", "400")] == 1
    assert samples[requests, ("route", "other"), ("status", "404")] == 1
    assert samples["guardtrain_request_seconds_count", ("route", "/v1/predict")] == 2
    assert samples["guardtrain_images_total", ("outcome", "judged")] == 5
    assert samples["guardtrain_images_total", ("outcome", "unreadable")] == 1
    assert samples[("guardtrain_batch_size_sum",)] == 5
    assert samples[("guardtrain_queue_depth",)] == 0
    assert samples[("guardtrain_buffered_bytes",)] == 0
    for decision in ("safe", "unsafe"):
        count = sum(result["decision"] == decision for result in answer["results"])
        labels = (("decision", decision), ("point", answer["point"]))
        assert samples.get(("guardtrain_decisions_total", *labels), 0) == count


def test_nothing_that_is_sent_goes_to_the_disk_or_the_log(
    serving: Callable[..., TestClient],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Any,
) -> None:
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            opened.append(str(arguments[0]))

    client = serving()
    big = png(1500, 1500, zlib.compress(np.random.default_rng(0).bytes(1501 * 1500)))  # beyond any spool in memory
    caplog.set_level("DEBUG", "guardtrain")
    sys.addaudithook(hook)
    response = client.post("/v1/predict", files=[("image", ("secret-name.png", big))])
    client.post("/v1/predict", files=[("image", ("secret-name.png", b"?"))])
    watching = False
    assert response.status_code in (200, 422)
    assert opened == []
    assert "secret-name" not in caplog.text


def test_unknown_paths_and_methods(serving: Callable[..., TestClient]) -> None:
    client = serving(page=False)
    assert client.get("/").status_code == 404
    assert client.get("/v1/nothing").json()["status"] == 404
    wrong = client.get("/v1/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
