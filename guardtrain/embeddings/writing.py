"""One writer at a time in a store's folder, and failed writes that say which folder and what is left of it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardtrain.disk import cause, disk_error
from guardtrain.embeddings.journal import finish
from guardtrain.errors import StoreError

LOCK_FILE = ".lock"
WRITER_FILE = ".writer"  # who holds the lock, to tell the next; gone once it is given up


@contextmanager
def only_writer(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a store while writing to it. The system gives it up when its holder dies, kill -9 included.

    Of two writers at once the second is refused, and the store is the first one's, whole. Jobs that want the same
    thing, such as those of a sweep whose embeddings go to one cache, wait for the first, and find it made.

    Args:
        folder: the store's; made where there is none.
        wait: for another writer, with a line that says so, in place of the error.

    Raises:
        StoreError: another process is writing there, or the folder cannot be written to (read-only, disk full).
    """
    from filelock import FileLock, Timeout

    with named_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = _writer(folder)
            if not wait:
                raise StoreError(
                    f"{who} is writing to the store {folder}. Wait until it has ended, or choose another folder."
                ) from None
            print(f"{who} is writing to the store {folder}: waiting for it.", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        with named_failures(folder):
            finish(folder)  # what a writer that was killed left
        with suppress(OSError):  # it only tells others, so a full disk need not end us here
            began = time.strftime("%Y-%m-%d %H:%M:%S")
            (folder / WRITER_FILE).write_text(f"Process {os.getpid()} on {socket.gethostname()} (since {began})")
        yield
    finally:
        with suppress(OSError):
            (folder / WRITER_FILE).unlink(missing_ok=True)
        lock.release()


def _writer(folder: Path) -> str:
    """Who holds the lock, as far as it has said so."""
    try:
        return (folder / WRITER_FILE).read_text() or "Another process"
    except (OSError, ValueError):
        return "Another process"


@contextmanager
def named_failures(folder: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into an error that names the store.

    Raises:
        StoreError: read-only, no permission, no space left, file too large.
    """
    try:
        yield
    except OSError as error:
        number = disk_error(error)
        why = error.strerror or str(error) if number is None else cause(number, folder)
        raise StoreError(
            f"The store {folder} could not be written to: {why}. What was whole there before still is. Make it "
            "writable, with space left, and run the same command again: it goes on where it stopped."
        ) from error
