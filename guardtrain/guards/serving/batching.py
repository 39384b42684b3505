"""Answers in batches: items are prepared by several threads and worked on by one, as many at once as are there."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")
Answer = TypeVar("Answer")


class QueueFull(Exception):
    """The queue holds as many items as may wait."""


class Closed(Exception):
    """The batcher takes nothing any more."""


@dataclass(frozen=True)
class _Item(Generic[Ready, Answer]):
    ready: Ready
    future: Future[Answer]


class Batcher(Generic[Raw, Ready, Answer]):
    """Takes items one by one and answers them in batches.

    A batch is all that is prepared when the worker is free, up to `max_batch`. The worker waits for more only while
    items are being prepared, at most `max_wait` seconds: a single client waits for nobody.

    Args:
        prepare: `raw -> ready`, run by `threads` threads; what it raises is the item's answer.
        work: `[ready, …] -> [answer, …]`, run by one thread of its own. Where it raises for several items, it is
            called again for each alone, so that none is answered for another's fault.
        max_batch: items that `work` is given at once.
        max_wait: seconds.
        max_waiting: items that may be unanswered.
        threads: that prepare.
        begin: run by the worker's thread before anything else (thread counts are a thread's own).
        begin_preparing: run so by each thread that prepares.
        observe: told the size of each batch and the seconds it took.
    """

    def __init__(
        self,
        prepare: Callable[[Raw], Ready],
        work: Callable[[list[Ready]], Sequence[Answer]],
        *,
        max_batch: int = 32,
        max_wait: float = 0.002,
        max_waiting: int = 256,
        threads: int = 1,
        begin: Callable[[], object] = lambda: None,
        begin_preparing: Callable[[], object] = lambda: None,
        observe: Callable[[int, float], object] = lambda size, seconds: None,
    ) -> None:
        self._prepare, self._work, self._begin, self._observe = prepare, work, begin, observe
        self._max_batch, self._max_wait, self._max_waiting = max_batch, max_wait, max_waiting
        self._changed = threading.Condition()
        self._queue: deque[_Item[Ready, Answer]] = deque()
        self._unanswered = 0
        self._preparing = 0
        self._closed = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=begin_preparing)
        self._worker = threading.Thread(target=self._run, name="guard", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Items that have no answer yet."""
        return self._unanswered

    @property
    def alive(self) -> bool:
        """Whether items are taken and answered."""
        return self._worker.is_alive() and not self._closed

    def submit(self, raws: Sequence[Raw]) -> list[Future[Answer]]:
        """Take all of `raws`, or none; the answers come in their order. A cancelled future costs no work.

        Raises:
            QueueFull, Closed: none was taken.
        """
        with self._changed:
            if self._closed:
                raise Closed
            if self._unanswered + len(raws) > self._max_waiting:
                raise QueueFull
            self._unanswered += len(raws)
            self._preparing += len(raws)
        futures: list[Future[Answer]] = []
        for raw in raws:
            future: Future[Answer] = Future()
            future.add_done_callback(self._answered)
            futures.append(future)
            try:
                self._pool.submit(self._make_ready, raw, future)
            except RuntimeError:  # shut down meanwhile, after `close` had waited long enough
                _answer(future, error=Closed())
        return futures

    def close(self, timeout: float | None = None) -> bool:
        """Take nothing any more, answer what was taken, and end the threads; returns whether all was answered in time.

        Args:
            timeout: seconds; None for as long as it takes.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._unanswered == 0, timeout)
        self._pool.shutdown(wait=done, cancel_futures=True)
        self._worker.join(timeout if done else 0)
        return done

    def _answered(self, future: Future[Answer]) -> None:
        with self._changed:
            self._unanswered -= 1
            self._changed.notify_all()

    def _make_ready(self, raw: Raw, future: Future[Answer]) -> None:
        ready: list[Ready] = []
        try:
            if not future.cancelled():
                ready.append(self._prepare(raw))
        except BaseException as error:
            _answer(future, error=error)
        with self._changed:
            self._preparing -= 1
            self._queue.extend(_Item(one, future) for one in ready)
            self._changed.notify_all()

    def _run(self) -> None:
        self._begin()
        while batch := self._next():
            started = time.perf_counter()
            self._answer_all(batch)
            self._observe(len(batch), time.perf_counter() - started)

    def _next(self) -> list[_Item[Ready, Answer]]:
        """The next batch; none at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or (self._closed and not self._unanswered))
                latest = time.monotonic() + self._max_wait
                while self._preparing and len(self._queue) < self._max_batch and not self._closed:
                    if not self._changed.wait(max(0.0, latest - time.monotonic())):
                        break
                taken = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
                if not taken:
                    return []
                # of those whose asker went away nothing is worked out
                if batch := [item for item in taken if item.future.set_running_or_notify_cancel()]:
                    return batch

    def _answer_all(self, batch: list[_Item[Ready, Answer]]) -> None:
        try:
            answers = self._work([item.ready for item in batch])
            for item, answer in zip(batch, answers, strict=True):
                _answer(item.future, answer)
        except BaseException as error:
            if len(batch) == 1:
                _answer(batch[0].future, error=error)
                return
            for item in batch:
                if not item.future.done():
                    self._answer_all([item])


def _answer(future: Future[Answer], answer: Answer | None = None, error: BaseException | None = None) -> None:
    """Give the answer, unless nobody waits for it any more."""
    if not future.running() and not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)  # type: ignore[arg-type]
