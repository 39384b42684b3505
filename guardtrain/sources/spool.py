"""Streams that cannot be sought in (pipes, compressed files), copied to temporary files a few at a time."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import subprocess
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import IO, Any

from guardtrain.errors import DataError
from guardtrain.file_names import open_on_disk
from guardtrain.sources.images import is_url

PIPE = "pipe:"
_CHUNK = 1 << 20
_MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


@dataclass(frozen=True)
class Spooled:
    """A stream in a temporary file that has no name: it goes with its last reader, even by `kill -9`.

    Args:
        file: the content, decompressed.
        size, digest: of the stream as it came: bytes and hex sha256.
    """

    file: IO[bytes]
    size: int
    digest: str


class Spool:
    """The streams needed last.

    Args:
        limit: streams kept at once.
        folder: where the temporary files lie; default: `$TMPDIR`.
    """

    def __init__(self, limit: int, folder: str | None) -> None:
        self._limit, self._folder = limit, folder
        self._kept: OrderedDict[str, Spooled] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, url: str) -> Spooled:
        """The stream of `pipe:COMMAND`, or of a path or fsspec URL of a compressed file.

        Raises:
            DataError: the command fails, or the temporary folder is full.
        """
        with self._lock:
            lock = self._locks.setdefault(url, threading.Lock())
        with lock:
            with self._lock:
                if url in self._kept:
                    self._kept.move_to_end(url)
                    return self._kept[url]
                while len(self._kept) >= self._limit:
                    self._kept.popitem(last=False)  # readers still at work hold it by themselves
            spooled = self._read(url)
            with self._lock:
                self._kept[url] = spooled
            return spooled

    def _temporary(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._folder, prefix="guardtrain-")  # type: ignore[return-value]

    def _read(self, url: str) -> Spooled:
        try:
            raw: IO[bytes] = self._temporary()
            if url.startswith(PIPE):
                size, digest = _run(url.removeprefix(PIPE), raw)
            else:
                with _opened(url) as stream:
                    size, digest = _copy(stream, raw)
            opener = compression(raw)
            if opener is None:
                return Spooled(raw, size, digest)
            plain = self._temporary()
            with opener(raw) as unpacked:
                shutil.copyfileobj(unpacked, plain, _CHUNK)
            raw.close()
            plain.seek(0)
            return Spooled(plain, size, digest)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(
                f"{url} cannot be copied to a temporary file in {self._folder or tempfile.gettempdir()}: {error}. "
                "TMPDIR names another folder."
            ) from error


def _opened(url: str) -> Any:
    if not is_url(url):
        return open_on_disk(url)
    import fsspec

    return fsspec.open(url, "rb")


def compression(file: IO[bytes]) -> Any:
    """Return what opens a compressed file, by its first bytes; None where it is not compressed."""
    file.seek(0)
    head = file.read(6)
    file.seek(0)
    return next((opener for magic, opener in _MAGIC.items() if head.startswith(magic)), None)


def _copy(stream: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    target.flush()
    return size, digest.hexdigest()


def _run(command: str, target: IO[bytes]) -> tuple[int, str]:
    """The output of a shell command, which must succeed: a stream cut short is no tar."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stderr=complaints)
        try:
            assert process.stdout is not None
            size, digest = _copy(process.stdout, target)
        except BaseException:
            process.kill()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
            status = process.wait()
        if status:
            complaints.seek(0)
            said = complaints.read().decode("utf-8", "replace").strip()[-500:]
            raise DataError(f"The command of {PIPE}{command} ended with status {status}: {said or 'it said nothing'}")
    return size, digest
