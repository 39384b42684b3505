"""The server as a process: what it tells, and an end that answers what it took."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from guardtrain.guards.guard import Guard

WAIT = 120  # seconds for what comes soon


@contextmanager
def server(guard: Path, *settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`guardtrain serve`, with its address."""
    command = [sys.executable, "-m", "guardtrain.cli", "serve", f"guard={guard}", "port=0", "threads=1", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})
    assert process.stdout is not None
    try:
        told = []
        for line in process.stdout:
            told.append(line)
            if match := re.search(r"serving +(http://\S+)", line):
                yield process, match[1]
                break
        else:
            raise AssertionError("".join(told))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.apart
def test_at_the_end_all_that_was_taken_is_answered(guard_folder: Path, guard: Guard, files: list[bytes]) -> None:
    expected = guard.predict(files).probabilities
    answers: dict[int, httpx.Response] = {}
    with server(guard_folder, "max_batch=1", "decode_threads=1") as (process, address):
        assert httpx.get(f"{address}/readyz").status_code == 200
        count = 6

        def ask(i: int) -> None:
            parts = [("image", (str(k), content)) for k, content in enumerate(files)]
            answers[i] = httpx.post(f"{address}/v1/predict", files=parts, timeout=WAIT)

        asking = [threading.Thread(target=ask, args=(i,)) for i in range(count)]
        for thread in asking:
            thread.start()
        # images are counted the moment they are taken
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            text = httpx.get(f"{address}/metrics").text
            done = re.search(r"^guardtrain_images_total\S* (\S+)", text, re.M)
            waiting = float(re.search(r"^guardtrain_queue_depth (\S+)", text, re.M)[1])  # type: ignore[index]
            if waiting + (float(done[1]) if done else 0) >= count * len(files):
                break
        process.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(WAIT)
        assert process.wait(WAIT) == 0
    assert sorted(answers) == list(range(count))
    for response in answers.values():
        assert response.status_code == 200
        found = [result["probability"] for result in response.json()["results"]]
        assert found == pytest.approx(expected, abs=1e-5)
