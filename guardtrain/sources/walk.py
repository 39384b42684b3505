"""Folders gone through once: which files are taken, each by one path, and what is passed over, counted by its kind."""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardtrain.file_names import path_on_disk, path_text
from guardtrain.files import DRAWN_FILE
from guardtrain.sources.decoding import endings
from guardtrain.sources.endings import Wanted, ending_of, kind_of, kinds_text

_Key = tuple[int, int]  # device and number of a folder


@dataclass
class Walk:
    """Goes through folders. A folder that is there once on disk is gone through once, whatever links lead to it.

    A real path comes before a link. Links to folders elsewhere are followed; one that leads back to where it stands, or
    to a folder or file that is taken already, is passed over. So is what is hidden (a dot before its name), and what
    guardtrain drew itself. The order is that of the names' bytes: the same on every machine.

    Args:
        wanted: which files are taken.

    Attributes:
        links: path of what was passed over, and where it is taken already.
        passed: files passed over, by their ending.
        hidden, drawn, unreadable: hidden images, guardtrain's own pictures, folders that cannot be listed.
    """

    wanted: Wanted = field(default_factory=Wanted)
    links: list[tuple[str, str]] = field(default_factory=list, init=False)
    passed: Counter[str] = field(default_factory=Counter, init=False)
    hidden: list[str] = field(default_factory=list, init=False)
    drawn: list[str] = field(default_factory=list, init=False)
    unreadable: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._folders: dict[_Key, str] = {}  # those gone through, and by which path
        self._files: dict[tuple[_Key, str], str] = {}  # asked for by name, or come to by a link

    def files(self, roots: Sequence[str], within: str | None = None) -> Iterator[str]:
        """The wanted files under `roots`, as paths that begin with one of them.

        Args:
            roots: folders.
            within: a folder that holds them, and is not gone through even where a link leads to it.
        """
        if within is not None and (key := _key(within)) is not None:
            self._folders[key] = within
        linked: list[str] = []  # files
        pending = deque(sorted(roots, key=lambda path: (Path(path).is_symlink(), os.fsencode(path))))
        asked_for = len(pending)
        while pending:
            root, asked_for = pending.popleft(), asked_for - 1
            key = _key(root)
            there = None if key is None else self._folders.get(key)
            if there is None and asked_for < 0:
                there = _around(root)
            if there is not None:
                self.links.append((root, there))
            elif key is not None:
                folders: list[str] = []
                yield from self._real(root, key, folders, linked)
                pending.extend(sorted(folders, key=os.fsencode))
        for path in sorted(linked, key=os.fsencode):
            if not self._is_there(path):
                yield path

    def name(self, paths: Iterable[str]) -> None:
        """Take those of `paths` that are files by themselves, and not a second time out of a folder."""
        for path in map(path_on_disk, paths):
            if Path(path).is_file() and (place := _place(path)) is not None:
                self._files.setdefault(place, path)

    def once(self, paths: Iterable[str]) -> list[str]:
        """Return the files that are not taken yet, each once; a link to another of them is passed over."""
        real_first = sorted(paths, key=lambda path: (_is_linked(path), os.fsencode(path)))
        return [path for path in real_first if not self._is_there(path)]

    def lines(self) -> list[str]:
        """Return what was passed over, for people: a line for files, and those of `link_lines`."""
        kinds = [kinds_text(self.passed)] if self.passed else []
        kinds += [f"{len(self.drawn):,} drawn by guardtrain ({_first(self.drawn)})"] if self.drawn else []
        kinds += [f"{len(self.hidden):,} hidden ({_first(self.hidden)})"] if self.hidden else []
        return [f"passed over: {', '.join(kinds)}", *self.link_lines()] if kinds else self.link_lines()

    def link_lines(self) -> list[str]:
        """A line for links that were passed over, and one for folders that cannot be listed."""
        links = [f"{path_text(link)} (is {path_text(there)})" for link, there in self.links]
        what = {"taken already by another path": links, "that cannot be listed": self.unreadable}
        return [f"passed over: {len(found):,} {why}: {_first(found)}" for why, found in what.items() if found]

    def _real(self, root: str, key: _Key, folders: list[str], linked: list[str]) -> Iterator[str]:
        """The wanted files in a folder and in the real ones below it; links go to `folders` and `linked`."""
        stack = [(root, key)]
        while stack:
            folder, key = stack.pop()
            if key in self._folders:
                self.links.append((folder, self._folders[key]))
                continue
            self._folders[key] = folder
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
            except OSError as error:
                self.unreadable.append(f"{path_text(folder)} ({error.strerror})")
                continue
            drawn = _drawn(folder) if any(entry.name == DRAWN_FILE for entry in entries) else set()
            below: list[tuple[str, _Key]] = []
            for entry in entries:
                path, real = entry.path, not entry.is_symlink()
                if entry.is_dir(follow_symlinks=False) if real else _key(path) is not None:
                    if entry.name.startswith("."):
                        continue
                    if not real:
                        folders.append(path)
                    elif (inner := _key(path)) is not None:
                        below.append((path, inner))
                    else:
                        self.unreadable.append(path_text(path))
                elif entry.name.startswith("."):
                    self.hidden += [path_text(path)] if ending_of(entry.name) in endings() else []
                elif entry.name in drawn or (f"*{ending_of(entry.name)}" in drawn):
                    self.drawn.append(path_text(path))
                elif real and (key, entry.name) in self._files:
                    continue
                elif not self.wanted(path):
                    self.passed[kind_of(path)] += 1
                elif real:
                    yield path
                else:
                    linked.append(path)
            stack.extend(reversed(below))

    def _is_there(self, path: str) -> bool:
        """Whether a file, or what a link leads to, is taken by another path; if not, it is taken by this one."""
        place = _place(path)
        if place is None:
            return False  # a link to nothing, which whoever reads it will say
        if place not in self._files:
            folder = self._folders.get(place[0])
            real = None if folder is None or place[1].startswith(".") else str(Path(folder, place[1]))
            if real is None or not self.wanted(real):
                self._files[place] = path
                return False
            self._files[place] = real
        self.links.append((path, self._files[place]))
        return True


def _key(path: str) -> _Key | None:
    """Device and number of a folder; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:  # nothing, a link to nothing, one to itself, or in a folder that is not ours to enter
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _place(path: str) -> tuple[_Key, str] | None:
    """The folder that a file really lies in, and its name there; None where there is no such file."""
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    key = _key(folder)
    try:
        return (key, name) if key is not None and Path(real).exists() else None
    except OSError:
        return None


def _is_linked(path: str) -> bool:
    return os.path.realpath(path) != os.path.normpath(Path(path).absolute())


def _around(link: str) -> str | None:
    """Where a link leads, if it stands somewhere below that; None if not."""
    to, stands = os.path.realpath(link), os.path.realpath(Path(link).absolute().parent)
    return to if stands == to or stands.startswith(to.rstrip(os.sep) + os.sep) else None


def _drawn(folder: str) -> set[str]:
    try:
        return set(Path(folder, DRAWN_FILE).read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    except OSError:
        return set()


def _first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 3:,} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more
