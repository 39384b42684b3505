"""Requests that are wrong in all the ways we could think of; `python -m tests.guards.serving.fuzzing 10000` sends many.

Each is sent as bytes over a socket, as any client might, and what comes back is checked: an answer in the form that is
promised, no fault of the server's, and afterwards a right request still gets its right answer.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from PIL import Image

LIMIT = 1_000_000  # bytes of a body that the server takes
Request = tuple[str, bytes]  # content type, body


def bomb(rng: random.Random) -> bytes:
    """A small PNG that would be very large, in pixels or in its text."""
    side = rng.choice([100, 3_000, 9_000, 20_000, 65_000])
    height = rng.choice([1, side])
    rows = zlib.compress(bytes(min((side + 1) * height, 4_000_000)), 9)
    text = b"zTXt", b"c\0\0" + zlib.compress(bytes(rng.choice([0, 5_000_000])))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, height, 8, rng.choice([0, 2, 3, 6]), 0, 0, 0)), text]
    chunks += [(b"IDAT", rows), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return (b"\x89PNG\r\n\x1a\n" + b"".join(packed))[: LIMIT // 2]


def mangled(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, cut off, doubled or added."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        way = rng.randrange(5)
        if way == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif way == 1:
            del data[at : at + rng.randint(1, 200)]
        elif way == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
        elif way == 3:
            data[at:at] = data[at : at + rng.randint(1, 200)]
        else:
            del data[at:]
    return bytes(data)


def image(rng: random.Random, files: list[bytes]) -> bytes:
    """A file that is an image, was one, or never was."""
    way = rng.randrange(8)
    if way == 0:
        return rng.randbytes(rng.choice([0, 1, 10, 1000]))
    if way == 1:
        return bomb(rng)
    if way == 2:
        size = rng.choice([(1, 1), (1, 4000), (4000, 1), (3, 900), (2, 2)])
        out = io.BytesIO()
        Image.new(rng.choice(["L", "1", "P", "RGBA", "RGB", "LA"]), size).save(out, "PNG")
        return out.getvalue()
    if way == 3:
        return rng.choice(
            [b"GIF89a", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8 ", b"II*\0\x08\0\0\0", b"BM", b"%!PS-Adobe"]
        )
    return mangled(rng, rng.choice(files)) if way < 7 else rng.choice(files)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON, with a liking for extremes."""
    pick = rng.randrange(10 if depth < 3 else 7)
    if pick == 0:
        return rng.choice([0, -1, 1, 2**31, 2**63, -(2**64), 10**40, 10**400])
    if pick == 1:
        return rng.choice([0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")])
    if pick == 2:
        return rng.choice([None, True, False])
    if pick < 6:
        texts = [
            "",
            "strict",
            "\0",
            "\ud800",
            "é" * 50,
            "A" * 5000,
            "../../etc/passwd",
            "${a}",
            "{{7*7}}",
            "AAAA",
            "=" * 9,
        ]
        return rng.choice(texts)
    if pick == 6:
        return rng.choice([[], {}])
    if pick < 9:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    names = ["images", "embeddings", "data", "id", "point", "explain", "x"]
    return {rng.choice(names): value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def json_request(rng: random.Random, files: list[bytes], dim: int) -> Request:
    """A JSON body, right but for something."""
    way = rng.randrange(6)
    body: Any
    if way == 0:
        body = value(rng)
    elif way == 1:
        row = [rng.gauss(0, dim**-0.5) for _ in range(rng.choice([dim, dim, dim - 1, 1, 0]))]
        body = {"embeddings": [row] * rng.choice([1, 2, 33])}
    elif way == 2:
        rows: list[Any] = [[1.0] + [0.0] * (dim - 1)]
        rows[0][rng.randrange(dim)] = value(rng, 2)
        body = {"embeddings": rows}
    else:
        data = base64.b64encode(image(rng, files)).decode()
        if rng.random() < 0.3:
            data = mangled(rng, data.encode()).decode("latin-1")
        body = {"images": [{"data": data, "id": rng.choice(["a", "", "é" * 600, "\0"])}] * rng.choice([1, 1, 2, 40])}
    if isinstance(body, dict) and rng.random() < 0.3:
        body[rng.choice(["point", "explain", "fingerprint", "images", "colour"])] = value(rng)
    text = json.dumps(body).encode()
    if rng.random() < 0.3:
        text = mangled(rng, text)
    if rng.random() < 0.05:
        text = rng.choice([b"[" * 50_000, b'{"a":' * 20_000, b'{"embeddings":[[' + b"9" * 100_000 + b"]]}"])
    return "application/json" + rng.choice(["", "", "; charset=utf-8", ";charset=none", "; x=\xff"]), text


def form_request(rng: random.Random, files: list[bytes]) -> Request:
    """A form, right but for something; half of the time that is the image alone."""
    if rng.random() < 0.5:
        return "multipart/form-data; boundary=b", form_of(image(rng, files))
    boundary = rng.choice([b"b", b"----x", b"q" * 70, b"q" * 300, b"a b"])
    lines = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 40])):
        name = rng.choice([b"image", b"image", b"image", b"images", b"file", b"point", b"explain", b"x", b"", b"\xff"])
        disposition = b'Content-Disposition: form-data; name="' + name + b'"'
        if name not in (b"point", b"explain"):
            disposition += b'; filename="' + rng.choice([b"a.png", b"", b"\xff\0", b"../a", b"a" * 3000]) + b'"'
        content = (
            image(rng, files) if name not in (b"point", b"explain") else str(value(rng, 3)).encode("utf-8", "ignore")
        )
        headers = rng.choice([b"", b"Content-Type: image/png\r\n", b"X: " + rng.randbytes(20) + b"\r\n"])
        lines.append(b"--" + boundary + b"\r\n" + disposition + b"\r\n" + headers + b"\r\n" + content + b"\r\n")
    body = b"".join(lines) + rng.choice([b"--" + boundary + b"--\r\n"] * 4 + [b"", b"--" + boundary])
    if rng.random() < 0.4:
        body = mangled(rng, body)
    said = boundary if rng.random() < 0.9 else b"other"
    return "multipart/form-data" + rng.choice([f"; boundary={said.decode()}"] * 8 + ["", "; boundary=", ";;="]), body


def other_request(rng: random.Random, files: list[bytes]) -> Request:
    """Another content type, or more than the server takes."""
    if rng.random() < 0.2:
        return "application/json", bytes(LIMIT + rng.randint(0, 1000))
    kinds = [
        "",
        "text/plain",
        "image/png",
        "application/x-www-form-urlencoded",
        "application/xml",
        "a",
        "\xff/\xfe",
        ";",
    ]
    return rng.choice(kinds), rng.choice([b"", b"a=1", rng.randbytes(500), rng.choice(files)])


def raw_request(rng: random.Random, files: list[bytes], dim: int) -> bytes:
    """A whole request as bytes."""
    makers: list[Callable[[], Request]] = [
        lambda: json_request(rng, files, dim),
        lambda: form_request(rng, files),
        lambda: other_request(rng, files),
    ]
    kind, body = rng.choices(makers, [10, 10, 2])[0]()
    queries = [
        "",
        "",
        "",
        "",
        "?point=strict",
        "?point=%00",
        "?explain=9999999999999999999999",
        "?explain=-1",
        "?x=1&&&==",
    ]
    path = rng.choices(["/v1/predict" + rng.choice(queries), "/v1/guard", "/" + "a" * 3000, "/%00%ff"], [40, 1, 1, 1])[
        0
    ]
    method = rng.choices(["POST", "PUT", "GET", "DELETE", "BREW"], [60, 1, 1, 1, 1])[0]
    length = len(body) if rng.random() < 0.97 else rng.choice([0, len(body) // 2])
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n"
    if kind:
        head += f"Content-Type: {kind}\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def sent(address: tuple[str, int], request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer; 0 where the server closed the connection without one."""
    with socket.create_connection(address, timeout=60) as connection:
        with contextlib.suppress(OSError):  # it answered already, and does not want the rest
            connection.sendall(request)
        answer = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                answer += part
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]) if head else 0), body


def form_of(image: bytes) -> bytes:
    """A form with one file, its boundary `b`."""
    return b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n--b--\r\n"


def well_formed(image: bytes) -> bytes:
    """A right request with one image."""
    body = form_of(image)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body


def fuzz(
    address: tuple[str, int], files: list[bytes], expected: list[float], dim: int, count: int, seed: int = 0
) -> Counter[int]:
    """Send `count` requests; how often each status came.

    Args:
        address: of the server.
        files: images, and `expected` their probabilities.
        dim: of the guard's embeddings.

    Raises:
        AssertionError: a fault of the server's, an answer in another form, or afterwards a wrong one.
    """
    statuses: Counter[int] = Counter()
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        request = raw_request(rng, files, dim)
        status, body = sent(address, request)
        statuses[status] += 1
        assert status < 500, (seed, number, status, body[:300], request[:300])
        if body.startswith(b"{") and status >= 400:
            told = json.loads(body)
            assert told["status"] == status, (seed, number)
            assert told["detail"], (seed, number)
        elif status == 200 and b'"results"' in body:
            for result in json.loads(body)["results"]:
                assert (result["probability"] is None) == (result["error"] is not None), (seed, number)
                assert result["error"] or 0 <= result["probability"] <= 1, (seed, number)
        if number % 50 == 0:
            i = number // 50 % len(files)
            status, body = sent(address, well_formed(files[i]))
            assert status == 200, (seed, number, body[:300])
            assert abs(json.loads(body)["results"][0]["probability"] - expected[i]) < 1e-5, (seed, number)
    return statuses


def main(count: int) -> None:
    """Fuzz a server of one's own."""
    import tempfile
    from pathlib import Path
    from urllib.parse import urlsplit

    from guardtrain.guards.guard import Guard
    from tests.guards.serving.small_guard import image_files, write_small_guard
    from tests.guards.serving.test_running import server

    with tempfile.TemporaryDirectory() as folder:
        path = write_small_guard(Path(folder) / "scenes")
        guard, files = Guard.load(path), image_files(12)
        expected = guard.predict(files).probabilities.tolist()
        limits = ("max_body_mb=1", "max_megapixels=4", "timeout_s=20")
        with server(path, *limits) as (process, address):
            parts = urlsplit(address)
            assert parts.hostname and parts.port

            def memory() -> float:
                pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
                return int(pages) * 4096 / 2**20

            done, statuses = 0, Counter[int]()
            while done < count:
                step = min(1000, count - done)
                started = time.perf_counter()
                statuses += fuzz((parts.hostname, parts.port), files, expected, guard.dim, step, seed=done)
                done += step
                rate = step / (time.perf_counter() - started)
                print(
                    f"{done:>6,} requests, {rate:.0f} a second, {memory():.0f} MiB: {dict(sorted(statuses.items()))}",
                    flush=True,
                )
            assert process.poll() is None


if __name__ == "__main__":
    main(int(sys.argv[1]))
