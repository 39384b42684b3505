"""Reading, decoding and the model's forward pass at once; embeddings come out shard by shard, in order."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.embeddings.reading import Failure, Inputs, Reader

if TYPE_CHECKING:
    import torch

    from guardtrain.encoders.encoder import Encoder

# Threads that wait for files; nearly all they do is wait, and a bucket answers many at once.
READ_THREADS = 16
# Models that share the processors: with more, Python's lock is what they wait for, and each gets several processors.
_MOST_WORKERS = 8
_DECODED_AT_ONCE = 32  # images a decoding thread hands to a GPU's batch


@dataclass
class EmbeddedRows:
    """The embeddings of some of a source's rows.

    Args:
        rows: those embedded, ascending.
        matrix: (len(rows), D) float32.
        digests: hex sha256 of each row's file; empty where the source gives no files.
        failures: the rows that could not be read.
        animations: the rows that are embedded by the first of several frames.
    """

    rows: list[int]
    matrix: np.ndarray
    digests: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    animations: list[int] = field(default_factory=list)


class Forwarder:
    """A model at work on a source.

    On the CPU each worker reads, decodes and embeds a few images at a time, alone on its share of the processors: all
    of them are busy from the first image to the last, and nobody waits for anybody. On a GPU the workers decode, and
    one thread keeps the device supplied.

    Args:
        reader: of the records.
        model: on its device.
        workers: threads; default: the processors there are, on the CPU at most eight.
        share: processors to use; default: all this process may run on.
    """

    def __init__(self, reader: Reader, model: Encoder, workers: int | None = None, share: int | None = None) -> None:
        self._reader, self._model = reader, model
        self.on_cpu = model.device.type == "cpu"
        available = share or processors()
        self.workers = workers or (min(available, _MOST_WORKERS) if self.on_cpu else available)
        self.threads = max(1, available // self.workers) if self.on_cpu else 1
        self.idle_seconds = 0.0  # of a GPU, for want of data

    def run(
        self, shards: Iterable[Sequence[int]], advance: Callable[[int], None] = lambda rows: None
    ) -> Generator[EmbeddedRows, None, None]:
        """The embeddings of each of `shards`, in order; the next one's images are read while one is embedded.

        Passes of the model start anew with each shard, so that the same images share one however a run was interrupted.

        Args:
            shards: the rows of each.
            advance: told how many rows each step was.
        """
        wanted = [list(rows) for rows in shards]
        size = self._model.rows_a_pass
        if not self.on_cpu:
            size = min(size, _DECODED_AT_ONCE)
        pieces = [rows[i : i + size] for rows in wanted for i in range(0, len(rows), size)]
        steps = (
            self._embedded(pieces) if self.on_cpu else self._embedded_on_device(pieces, [len(rows) for rows in wanted])
        )
        for rows in wanted:
            parts: list[EmbeddedRows] = []
            done = 0
            while done < len(rows):
                part = next(steps)
                step = len(part.rows) + len(part.failures)
                done += step
                parts.append(part)
                advance(step)
            yield self._joined(parts)

    def _joined(self, parts: list[EmbeddedRows]) -> EmbeddedRows:
        return EmbeddedRows(
            [row for part in parts for row in part.rows],
            np.concatenate([part.matrix for part in parts]),
            [digest for part in parts for digest in part.digests],
            [failure for part in parts for failure in part.failures],
            [row for part in parts for row in part.animations],
        )

    def _inputs(self, rows: list[int], contents: list[Future[Any]] | None) -> Inputs:
        return self._reader.inputs(rows, [None] * len(rows) if contents is None else [c.result() for c in contents])

    def _read(self, row: int) -> Any:
        try:
            return self._reader.read(row)
        except Exception as error:  # told to the decoding thread, which sets the record aside
            return error

    def _in_order(
        self, pieces: list[list[int]], work: Callable[[list[int], list[Future[Any]] | None], Any], ahead: int
    ) -> Iterator[Any]:
        """`work` done on each piece by the workers, `ahead` of what is asked for, in order."""
        readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read") if self._reader.files else None
        pool = ThreadPoolExecutor(
            self.workers, thread_name_prefix="embed", initializer=_set_torch_threads, initargs=(self.threads,)
        )
        pending: deque[Future[Any]] = deque()
        try:
            for piece in pieces:
                contents = None if readers is None else [readers.submit(self._read, row) for row in piece]
                pending.append(pool.submit(work, piece, contents))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # On an error or Ctrl-C, do not read and decode what nobody will use.
            for each in (readers, pool):
                if each is not None:
                    each.shutdown(wait=False, cancel_futures=True)
            pool.shutdown(wait=True)

    def _embedded(self, pieces: list[list[int]]) -> Iterator[EmbeddedRows]:
        def work(rows: list[int], contents: list[Future[Any]] | None) -> EmbeddedRows:
            inputs = self._inputs(rows, contents)
            return EmbeddedRows(inputs.rows, self.features(inputs), inputs.digests, inputs.failures, inputs.animations)

        return self._in_order(pieces, work, 2 * self.workers)

    def features(self, inputs: Inputs) -> np.ndarray:
        """(len(inputs.rows), D) float32."""
        if inputs.batch is None:
            return np.zeros((0, self._model.dim), dtype=np.float32)
        if isinstance(inputs.batch, list):
            return self._model.encode_text(inputs.batch)
        return np.asarray(self._model.forward(inputs.batch).cpu().numpy())

    def _embedded_on_device(self, pieces: list[list[int]], sizes: list[int]) -> Iterator[EmbeddedRows]:
        """Batches gathered from decoded pieces; the device works on one while the next is sent after it."""
        import torch

        def work(rows: list[int], contents: list[Future[Any]] | None) -> Inputs:
            inputs = self._inputs(rows, contents)
            if isinstance(inputs.batch, torch.Tensor) and self._model.device.type == "cuda":
                return replace(inputs, batch=inputs.batch.pin_memory())
            return inputs

        ends = set(np.cumsum(sizes).tolist())
        size = self._model.batch_size
        decoded = self._in_order(pieces, work, 2 * self.workers + 2 * -(-size // _DECODED_AT_ONCE))
        waiting: list[Inputs] = []
        sent: tuple[EmbeddedRows, Any, Any] | None = None  # what the device works on: rows, features, their event
        seen = held = 0
        for piece in pieces:
            started = time.perf_counter()
            waiting.append(next(decoded))
            if sent is not None and sent[2] is not None and sent[2].query():
                self.idle_seconds += time.perf_counter() - started
            seen, held = seen + len(piece), held + len(piece)
            if held + _DECODED_AT_ONCE <= size and seen not in ends:
                continue
            part, features = self._sent(waiting)
            event = None
            if self._model.device.type == "cuda":
                event = torch.cuda.Event()
                event.record()
            if sent is not None:
                yield _fetched(*sent[:2])
            sent, waiting, held = (part, features, event), [], 0
            if seen in ends:
                yield _fetched(*sent[:2])
                sent = None

    def _sent(self, waiting: list[Inputs]) -> tuple[EmbeddedRows, Any]:
        import torch

        rows = EmbeddedRows(
            [row for inputs in waiting for row in inputs.rows],
            np.zeros((0, self._model.dim), dtype=np.float32),
            [digest for inputs in waiting for digest in inputs.digests],
            [failure for inputs in waiting for failure in inputs.failures],
            [row for inputs in waiting for row in inputs.animations],
        )
        batches = [inputs.batch for inputs in waiting if inputs.batch is not None]
        if batches and isinstance(batches[0], list):
            return rows, self._model.encode_text([text for batch in batches for text in batch])
        there: list[torch.Tensor] = [b.to(self._model.device, non_blocking=True) for b in batches]  # type: ignore[union-attr]
        return rows, self._model.forward(torch.cat(there)) if there else rows.matrix


def _fetched(rows: EmbeddedRows, features: Any) -> EmbeddedRows:
    matrix = features if isinstance(features, np.ndarray) else features.cpu().numpy()
    return replace(rows, matrix=matrix)


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_torch_threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """This many threads for torch's own work, and afterwards as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
