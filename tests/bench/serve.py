"""The web service under load, beside the bare model: requests a second, latencies, memory, and every answer checked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch

from guardtrain.guards.guard import Guard
from guardtrain.guards.predicting import ImageJudge
from guardtrain.sources.decoding import decode
from tests.guards.serving.small_guard import image_files, write_small_guard

CLIENTS = (1, 8, 32)
BATCH = 32
TOLERANCE = 1e-5  # of a probability: other batches round otherwise
WARM_UP = 3.0  # seconds before memory and latencies count


@dataclass
class Load:
    """What clients saw.

    Args:
        seconds: of each answer.
        lost: requests without an answer, or without status 200.
        wrong: answers that are not the guard's.
        memory: MiB of the server, every second.
        elapsed: seconds in all.
        processor: seconds of processors that the server took; what else the machine does leaves them as they are.
    """

    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    wrong: int = 0
    memory: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.elapsed

    def quantile(self, q: float) -> float:
        """Of the latency, in ms."""
        return 1e3 * float(np.quantile(self.seconds, q))


@contextmanager
def running(guard: Path, *settings: str, descriptors: int | None = None) -> Iterator[tuple[int, str, int]]:
    """`guardtrain serve` in a process of its own: its process id, host and port.

    Args:
        guard: its directory.
        settings: of the command.
        descriptors: that the process may hold at once, by a hard limit; None for as many as this one.
    """

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    command = [sys.executable, "-m", "guardtrain.cli", "serve", f"guard={guard}", "port=0", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=limit)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if match := re.search(r"serving +(http://\S+)", line):
                parts = urlsplit(match[1])
                assert parts.hostname and parts.port
                yield process.pid, parts.hostname, parts.port
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        assert process.wait(60) == 0, "the server did not end as it should"
        process.stdout.close()


def requests_of(files: list[bytes]) -> list[bytes]:
    """A form with each image, as bytes on the wire: the client costs next to nothing."""
    out = []
    for content in files:
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        body = part + content + b"\r\n--b--\r\n"
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        out.append(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body)
    return out


async def _client(host: str, port: int, requests: list[bytes], expected: np.ndarray, first: int, load: Load,
                  start: float, end: float) -> None:  # fmt: skip
    """One request after the other on one connection until `end`; latencies count from `start` on."""
    reader, writer = await asyncio.open_connection(host, port)
    i = first
    while (began := time.perf_counter()) < end:
        place = i % len(requests)
        i += 1
        try:
            writer.write(requests[place])
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
        except (OSError, asyncio.IncompleteReadError):
            load.lost += 1
            reader, writer = await asyncio.open_connection(host, port)
            continue
        took = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 200"):
            load.lost += 1
            continue
        (result,) = json.loads(body)["results"]
        load.wrong += not abs(result["probability"] - expected[place]) <= TOLERANCE
        if began >= start:
            load.seconds.append(took)
    writer.close()


async def _watch(pid: int, load: Load, start: float, end: float) -> None:
    await asyncio.sleep(max(0.0, start - time.perf_counter()))
    before = processor_seconds(pid)
    while time.perf_counter() < end:
        load.memory.append(memory(pid))
        await asyncio.sleep(1)
    load.processor = processor_seconds(pid) - before


def processor_seconds(pid: int) -> float:
    """That a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """MiB of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def put_under_load(
    pid: int, host: str, port: int, files: list[bytes], expected: np.ndarray, clients: int, seconds: float
) -> Load:
    """So many clients, each with one request at a time, for so long."""
    load, requests = Load(), requests_of(files)

    async def all_of_them() -> None:
        start = time.perf_counter() + WARM_UP
        end = start + seconds
        asking = [_client(host, port, requests, expected, 7 * n, load, start, end) for n in range(clients)]
        await asyncio.gather(_watch(pid, load, start, end), *asking)
        load.elapsed = time.perf_counter() - start

    asyncio.run(all_of_them())
    return load


def bare_rate(guard: Guard, files: list[bytes], batch: int, seconds: float) -> tuple[float, float]:
    """Images a second of decoding, encoder and head called directly, and the median time of a batch in ms."""
    encoder, times = guard.encoder, []
    started, i = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        began = time.perf_counter()
        some = [files[(i + k) % len(files)] for k in range(batch)]
        pixels = np.stack([encoder.pixels(decode(content, encoder.needed)) for content in some])
        guard.probabilities(encoder.forward(torch.from_numpy(pixels)).numpy())
        times.append(time.perf_counter() - began)
        i += batch
    return i / sum(times), 1e3 * float(np.median(times))


def head_latency(folder: Path, dim: int, repeats: int = 3000) -> float:
    """Median ms of one embedding through `head.onnx`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "head.onnx"), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, dim)).astype(np.float32)
    x /= np.linalg.norm(x)
    name, times = session.get_inputs()[0].name, []
    for _ in range(repeats):
        began = time.perf_counter()
        session.run(None, {name: x})
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def guard_over_encoder(guard: Guard, files: list[bytes], batch: int, repeats: int = 60) -> tuple[float, float]:
    """Median ms of processor of the whole guard on pixels, and of the encoder's forward pass alone; by turns."""
    judge = ImageJudge(guard)
    pixels = [judge.pixels(files[i % len(files)]) for i in range(batch)]
    inputs = torch.from_numpy(np.stack(pixels))
    whole, forward = [], []
    for _ in range(repeats):
        began = time.process_time()
        judge.judge(judge.embed(pixels))
        between = time.process_time()
        guard.encoder.forward(inputs)
        forward.append(time.process_time() - between)
        whole.append(between - began)
    return 1e3 * float(np.median(whole)), 1e3 * float(np.median(forward))


def bench_serve(
    report: Callable[[str, float, str, float], None], seconds: float = 20.0, many: Sequence[int] = CLIENTS
) -> dict[str, float]:
    """The head, the guard, and the service at 1, 8 and 32 clients for `seconds` each; figures by name."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_small_guard(Path(temporary) / "scenes", onnx=True)
        guard = Guard.load(folder, device="cpu")
        files = image_files(60)
        expected = guard.predict(files).probabilities
        figures["head_onnx_ms"] = head_latency(folder, guard.dim)
        print(f"  one embedding through head.onnx: {figures['head_onnx_ms']:.4f} ms (median)", flush=True)
        for batch in (1, BATCH):
            whole, forward = guard_over_encoder(guard, files, batch)
            figures |= {f"guard_ms_batch{batch}": whole, f"encoder_ms_batch{batch}": forward}
            more = whole / forward - 1
            print(
                f"  guard on {batch} images: {whole:.2f} ms, encoder alone {forward:.2f} ms ({more:+.1%})", flush=True
            )
            figures[f"bare_rate_batch{batch}"], figures[f"bare_ms_batch{batch}"] = bare_rate(guard, files, batch, 5)
        with running(folder, "device=cpu") as (pid, host, port):
            for clients in many:
                load = put_under_load(pid, host, port, files, expected, clients, seconds)
                bare = figures[f"bare_rate_batch{1 if clients == 1 else BATCH}"]
                report(
                    f"ms a request, {clients} clients",
                    1e3 / load.rate,
                    "decoding, encoder and head directly",
                    1e3 / bare,
                )
                grown = np.median(load.memory[-10:]) - np.median(load.memory[:10])
                print(
                    f"  {clients} clients: {load.rate:.0f} requests/s, p50 {load.quantile(0.5):.1f} ms, "
                    f"p99 {load.quantile(0.99):.1f} ms, {1e3 * load.processor / len(load.seconds):.1f} ms of processor "
                    f"a request; {len(load.seconds):,} answers, {load.lost} lost, {load.wrong} "
                    f"wrong; {load.memory[-1]:.0f} MiB, {grown:+.1f} since the start",
                    flush=True,
                )
                figures |= {
                    f"serve{clients}_rate": load.rate,
                    f"serve{clients}_p50_ms": load.quantile(0.5),
                    f"serve{clients}_p99_ms": load.quantile(0.99),
                    f"serve{clients}_processor_ms": 1e3 * load.processor / len(load.seconds),
                    f"serve{clients}_lost": load.lost,
                    f"serve{clients}_wrong": load.wrong,
                    f"serve{clients}_memory_growth_mib": float(grown),
                }
    return figures


if __name__ == "__main__":

    def _show(what: str, ours: float, other: str, theirs: float) -> None:
        print(f"{what:<30} {ours:7.2f} ms   {other} {theirs:7.2f} ms   {theirs / ours:.2f}×", flush=True)

    # python -m tests.bench.serve [SECONDS [CLIENTS ...]]: ten minutes of eight clients are 600 8
    bench_serve(_show, float(sys.argv[1]) if sys.argv[1:] else 20.0, [int(n) for n in sys.argv[2:]] or CLIENTS)
