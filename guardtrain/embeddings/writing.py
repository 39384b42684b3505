"""One writer at a time in a store's folder, and failed writes that say which folder and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guardtrain.errors import StoreError

LOCK_FILE = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a store while writing to it. The system gives it up when its holder dies, kill -9 included.

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
            raise StoreError(
                f"Another process is writing to the store {folder}. Wait until it has ended, or choose another folder."
            ) from None
        try:
            yield
        finally:
            lock.release()


@contextmanager
def named_failures(folder: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into an error that names the store.

    Raises:
        StoreError: read-only, no permission, no space left, file too large.
    """
    try:
        yield
    except OSError as error:
        # numpy tells how much it wrote, and not why it was no more
        reason = error.strerror or f"no space left, or a limit on the size of files ({error})"
        raise StoreError(
            f"The store {folder} could not be written to: {reason}. What was whole there before still is. Make it "
            "writable, with space left, and run the same command again: it goes on where it stopped."
        ) from error
