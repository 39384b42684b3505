from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.guards.serving.batching import Batcher, Closed, QueueFull

WAIT = 30  # seconds a test waits for what comes at once


class Gate:
    """Work that waits until it is let through, and remembers its batches."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.open.wait(WAIT)
        return [10 * item for item in items]


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    max_batch=st.integers(1, 9),
    threads=st.integers(1, 4),
    bad=st.sets(st.integers(0, 40), max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_every_item_gets_its_own_answer(sizes: list[int], max_batch: int, threads: int, bad: set[int]) -> None:
    seen: list[int] = []

    def work(items: list[int]) -> list[int]:
        seen.append(len(items))
        if set(items) & bad:
            raise ValueError(sorted(set(items) & bad))
        return [item * item for item in items]

    def prepare(item: int) -> int:
        if item % 13 == 12:
            raise OSError(str(item))
        return item

    batcher = Batcher(prepare, work, max_batch=max_batch, max_wait=0.001, max_waiting=1000, threads=threads)
    futures, first = [], 0
    for size in sizes:
        futures += batcher.submit(range(first, first + size))
        first += size
    for item, future in enumerate(futures):
        error = future.exception(WAIT)
        if item % 13 == 12:
            assert isinstance(error, OSError)
        elif item in bad:  # and nobody else, though they shared a batch
            assert isinstance(error, ValueError)
        else:
            assert future.result() == item * item
    assert batcher.close(WAIT)
    assert batcher.waiting == 0
    assert max(seen, default=0) <= max_batch


def test_what_comes_while_the_worker_is_busy_makes_one_batch() -> None:
    gate = Gate()
    batcher = Batcher(lambda item: item, gate, max_batch=8, max_wait=WAIT, max_waiting=100)
    first = batcher.submit([1])
    assert gate.entered.wait(WAIT)
    rest = [future for item in range(2, 14) for future in batcher.submit([item])]
    while batcher._preparing:
        time.sleep(0.001)
    gate.open.set()
    assert [future.result(WAIT) for future in first + rest] == [10 * item for item in range(1, 14)]
    assert gate.batches == [[1], list(range(2, 10)), list(range(10, 14))]
    assert batcher.close(WAIT)


def test_a_single_item_waits_for_nobody() -> None:
    batcher = Batcher(lambda item: item, lambda items: items, max_batch=8, max_wait=10 * WAIT)
    assert batcher.submit([3])[0].result(WAIT) == 3
    assert batcher.close(WAIT)


def test_the_worker_waits_for_what_is_being_prepared() -> None:
    slow, batches = threading.Event(), []

    def prepare(item: int) -> int:
        if item == 2:
            assert slow.wait(WAIT)
        return item

    def work(items: list[int]) -> list[int]:
        batches.append(sorted(items))
        return items

    batcher = Batcher(prepare, work, max_batch=8, max_wait=10 * WAIT, threads=2)
    futures = batcher.submit([1, 2])
    slow.set()
    assert [future.result(WAIT) for future in futures] == [1, 2]
    assert batches == [[1, 2]]
    assert batcher.close(WAIT)


def test_no_more_than_may_be_is_taken_and_all_of_a_request_or_none() -> None:
    gate = Gate()
    batcher = Batcher(lambda item: item, gate, max_batch=4, max_waiting=5)
    taken = batcher.submit([1, 2, 3])
    with pytest.raises(QueueFull):
        batcher.submit([4, 5, 6])
    assert batcher.waiting == 3
    taken += batcher.submit([4, 5])
    gate.open.set()
    assert [future.result(WAIT) for future in taken] == [10, 20, 30, 40, 50]
    assert batcher.submit([6])[0].result(WAIT) == 60
    assert batcher.close(WAIT)


def test_what_was_taken_is_answered_at_the_end_and_nothing_is_taken_after() -> None:
    gate = Gate()
    batcher = Batcher(lambda item: item, gate, max_batch=2, max_waiting=20)
    taken = batcher.submit(list(range(9)))
    closing = threading.Thread(target=lambda: batcher.close(WAIT))
    closing.start()
    while batcher.alive:
        time.sleep(0.001)
    with pytest.raises(Closed):
        batcher.submit([9])
    gate.open.set()
    closing.join(WAIT)
    assert [future.result(0) for future in taken] == [10 * item for item in range(9)]


def test_of_what_nobody_waits_for_nothing_is_worked_out() -> None:
    gate = Gate()
    batcher = Batcher(lambda item: item, gate, max_batch=1, max_waiting=20)
    first = batcher.submit([1])[0]
    assert gate.entered.wait(WAIT)
    second, third = batcher.submit([2, 3])
    assert second.cancel()
    assert batcher.waiting == 2
    gate.open.set()
    assert [first.result(WAIT), third.result(WAIT)] == [10, 30]
    with pytest.raises(CancelledError):
        second.result(WAIT)
    assert gate.batches == [[1], [3]]
    assert batcher.close(WAIT)
    assert batcher.waiting == 0


def test_closing_gives_up_after_its_time() -> None:
    gate = Gate()
    batcher = Batcher(lambda item: item, gate)
    batcher.submit([1])
    assert gate.entered.wait(WAIT)
    assert not batcher.close(0.01)
    gate.open.set()
