"""Several files of a store replaced at once: at every moment, and after any kill, all are the old or all the new."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from guardtrain.files import replace_file

T = TypeVar("T")

FOLDER = ".renewal"
_LIST = "list.json"  # there once every new file is: from then on the new ones count


class Journal:
    """New files beside the old ones in `folder`, whose lock its user holds, until `commit` puts all of them in place.

    Readers take the file that counts (`read_current`), so they see none of it before that moment and all of it after.
    What a kill leaves is finished, or cleared away, by `finish`, which every writer calls first.

    Args:
        folder: the store's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, list[str]()

    def add(self, file: Path, content: bytes | memoryview) -> None:
        """Note what `file`, a path within the folder, shall hold."""
        name = file.relative_to(self._folder).as_posix()

        def write(path: Path) -> None:
            with path.open("wb") as handle:
                handle.write(content)

        replace_file(self._folder / FOLDER / name, write)
        self._names.append(name)

    def commit(self) -> None:
        """Put all files in place; without any nothing happens."""
        if not self._names:
            return
        text = json.dumps(self._names)
        replace_file(self._folder / FOLDER / _LIST, lambda path: path.write_text(text, encoding="utf-8"))
        finish(self._folder)


def current(file: Path) -> Path:
    """Where the content of a store's file lies that counts: a new one that is not in place yet, else `file` itself.

    Args:
        file: in the store's folder, or in a folder of it.
    """
    for folder in (file.parent.parent, file.parent):
        new = folder / FOLDER / file.relative_to(folder)
        if new.is_file() and unfinished(folder):
            return new
    return file


def read_current(file: Path, read: Callable[[Path], T]) -> T:
    """Apply `read` to the file that counts, asking for `file` once more where that was put in place meanwhile."""
    if (new := current(file)) != file:
        try:
            return read(new)
        except FileNotFoundError:
            pass
    return read(file)


def unfinished(folder: Path) -> bool:
    """Whether files that count are not in place yet."""
    return (folder / FOLDER / _LIST).is_file()


def finish(folder: Path) -> None:
    """Put files in place that count already, and clear away those that do not; call it holding the store's lock."""
    journal = folder / FOLDER
    if not journal.is_dir():
        return
    if unfinished(folder):
        for name in json.loads((journal / _LIST).read_text(encoding="utf-8")):
            replace_file(folder / name, lambda path, new=journal / name: shutil.copyfile(new, path))  # type: ignore[misc]
        (journal / _LIST).unlink()
    shutil.rmtree(journal)
