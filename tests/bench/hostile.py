"""The web service while connections are held that never end: heads that stay unfinished, bodies that trickle.

`python -m tests.bench.hostile [SECONDS [HEADS [BODIES [DESCRIPTORS]]]]`; the last is a hard limit that the service runs
under. A connection that the service ends is made again at once.
"""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from tests.bench.serve import memory, processor_seconds, running
from tests.guards.serving.fuzzing import form_of
from tests.guards.serving.small_guard import image_files, write_small_guard

HEAD = b"GET /readyz HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
PAUSE = 0.2  # seconds between two ordinary requests
TYPE = {"Content-Type": "multipart/form-data; boundary=b"}


def hold(port: int, seconds: float, heads: int, bodies: int) -> None:
    """Hold so many connections, each with a few bytes more every five seconds."""
    made = 0

    async def one(first: bytes, more: bytes) -> None:
        nonlocal made
        while time.perf_counter() < end:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                made += 1
                writer.write(first)
                while time.perf_counter() < end:
                    try:
                        if not await asyncio.wait_for(reader.read(1 << 16), 5.0):
                            break
                    except TimeoutError:
                        writer.write(more)
                writer.close()

    async def all_of_them() -> None:
        held = [one(HEAD, b"X: y\r\n") for _ in range(heads)] + [one(BODY, b" ") for _ in range(bodies)]
        await asyncio.gather(*held)

    end = time.perf_counter() + seconds
    asyncio.run(all_of_them())
    print(f"  {made:,} connections were made to hold {heads + bodies:,}", flush=True)


def asked(port: int, body: bytes | None) -> tuple[int, float]:
    """Status and ms of an ordinary request on a connection of its own: an image to judge, or whether it is ready."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if body is None:
            connection.request("GET", "/readyz")
        else:
            connection.request("POST", "/v1/predict", body, TYPE)
        response = connection.getresponse()
        response.read()
        return response.status, 1e3 * (time.perf_counter() - began)
    except OSError:
        return 0, 1e3 * (time.perf_counter() - began)
    finally:
        connection.close()


def tell(what: str, answers: list[tuple[int, float]]) -> None:
    """Statuses and times in a line."""
    times, good = [ms for _, ms in answers], sum(status == 200 for status, _ in answers)
    low, high = np.quantile(times, [0.5, 0.95])
    print(
        f"  {what:<22} {good} of {len(answers)} answered, median {low:.0f} ms, 95 of 100 within {high:.0f} ms, "
        f"the slowest {max(times):.0f} ms",
        flush=True,
    )


def main(seconds: float = 60.0, heads: int = 2000, bodies: int = 200, descriptors: int | None = None) -> None:
    """Ordinary requests before and meanwhile."""
    forms = [form_of(content) for content in image_files(20)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_small_guard(Path(temporary) / "scenes")
        with running(folder, "device=cpu", descriptors=descriptors) as (pid, _, port):
            quiet = [(asked(port, None), asked(port, form)) for form in forms]
            tell("before, ready", [ready for ready, _ in quiet])
            tell("before, an image", [image for _, image in quiet])
            before, busy = memory(pid), processor_seconds(pid)
            holding = multiprocessing.Process(target=hold, args=(port, seconds, heads, bodies))
            holding.start()
            during, sizes, end = [], [before], time.perf_counter() + seconds
            while time.perf_counter() < end:
                during.append((asked(port, None), asked(port, forms[len(during) % len(forms)])))
                sizes.append(memory(pid))
                time.sleep(PAUSE)
            holding.join()
            tell("meanwhile, ready", [ready for ready, _ in during])
            tell("meanwhile, an image", [image for _, image in during])
            share = (processor_seconds(pid) - busy) / seconds
            print(f"  memory {before:.0f} MiB before, {max(sizes):.0f} at most; {share:.0%} of a processor", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(float(text) for text in given[:1]), *(int(text) for text in given[1:4]))
