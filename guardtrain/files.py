"""Files that are never half-written, that one process writes at a time; their digest; which are no user's pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from guardtrain.disk import named_writes

# In a folder: the names of those pictures that guardtrain drew itself, one a line; `*.png` is all of them.
DRAWN_FILE = ".guardtrain-drawn"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write `path` so that it is, at every moment and after any kill, the old file or the whole new one.

    Call it while holding the lock that guards `path`: temporary files of earlier, killed writers are then known to be
    stale and are removed first.

    Args:
        write: writes the new content to the temporary path it is given.

    Raises:
        OSError: it cannot be written; where the disk is full or fails, with `path` as its file name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        stale.unlink(missing_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with named_writes(path):
            write(temporary)
            _fsync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync(path.parent)  # makes the rename itself last through a power cut


@contextmanager
def only_process(lock_file: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock. The system gives it up when its holder dies, kill -9 included.

    Args:
        lock_file: what is locked; its folder is made where there is none.
        refusal: raised where another process holds it.
    """
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()


def note_drawn(files: Iterable[Path]) -> None:
    """Note beside those of `files` that are PNGs that guardtrain drew them: figures, contact sheets, masks.

    Folders of images are gone through without them; a picture that is named by itself is judged all the same.

    Args:
        files: what a command wrote; `FOLDER/*.png` stands for all of a folder's.
    """
    by_folder: dict[Path, list[str]] = {}
    for file in files:
        if file.suffix == ".png":
            by_folder.setdefault(file.parent, []).append(file.name)
    for folder, names in by_folder.items():
        note = folder / DRAWN_FILE
        known = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
        if new := [name for name in names if name not in known]:
            text = "\n".join([*known, *new]) + "\n"
            replace_file(note, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stand_in(path: Path) -> str:
    """Say what a file is that was saved in the place of weights, and how to get these; empty for any other file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return (
            f"{path} is a Git-LFS pointer, a few lines that stand for a file in a clone, not the file itself: run "
            "`git lfs pull` in the clone, or download the file."
        )
    if start.startswith((b"<!doctype html", b"<html")):
        return (
            f"{path} is an HTML page, not the file that the page is about: its link was saved, or a login was asked "
            "for. Download the file itself (from the Hugging Face hub with `hf download`, or /resolve/ for /blob/ in "
            "the link)."
        )
    return ""


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
