"""Which files a setting names: one, a folder, a glob, a brace pattern; local or on an fsspec file system."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guardtrain.errors import DataError
from guardtrain.file_names import path_on_disk, path_text
from guardtrain.grammar import setting_text
from guardtrain.sources.endings import Wanted
from guardtrain.sources.images import is_url
from guardtrain.sources.rows import stat_key
from guardtrain.sources.unclear import Unclear
from guardtrain.sources.walk import Walk

log = logging.getLogger(__name__)

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
_LETTERS = re.compile(r"([a-zA-Z])\.\.([a-zA-Z])")


def brace_expand(pattern: str) -> list[str]:
    """Expand a shell's brace pattern; ranges keep their leading zeros. Braces without `,` or `..` stay.

    >>> brace_expand("shards/{00008..00010}.tar")
    ['shards/00008.tar', 'shards/00009.tar', 'shards/00010.tar']
    >>> brace_expand("{train,val}-{0..1}.tar")
    ['train-0.tar', 'train-1.tar', 'val-0.tar', 'val-1.tar']
    """
    group = _first_group(pattern)
    if group is None:
        return [pattern]
    start, stop = group
    choices = _choices(pattern[start + 1 : stop - 1])
    return [pattern[:start] + choice + rest for choice in choices for rest in brace_expand(pattern[stop:])]


def _first_group(pattern: str) -> tuple[int, int] | None:
    """Start and end of the first `{…}` that stands for several texts."""
    for start in (i for i, c in enumerate(pattern) if c == "{"):
        depth = 0
        for i in range(start, len(pattern)):
            depth += {"{": 1, "}": -1}.get(pattern[i], 0)
            if depth == 0:
                inner = pattern[start + 1 : i]
                if len(_parts(inner)) > 1 or _RANGE.fullmatch(inner) or _LETTERS.fullmatch(inner):
                    return start, i + 1
                break
    return None


def _parts(inner: str) -> list[str]:
    """The texts between the commas that are in no inner braces."""
    parts, depth, last = [], 0, 0
    for i, c in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append(inner[last:i])
            last = i + 1
    return [*parts, inner[last:]]


def _choices(inner: str) -> Iterator[str]:
    if bounds := _RANGE.fullmatch(inner):
        first, last = int(bounds[1]), int(bounds[2])
        step = abs(int(bounds[3] or 1)) or 1
        padded = any(re.match(r"-?0\d", text) for text in bounds.group(1, 2))
        width = max(len(bounds[1]), len(bounds[2])) if padded else 0
        numbers = range(first, last + 1, step) if last >= first else range(first, last - 1, -step)
        return (f"{number:0{width}d}" for number in numbers)
    if ends := _LETTERS.fullmatch(inner):
        first, last = ord(ends[1]), ord(ends[2])
        return map(chr, range(first, last + 1) if last >= first else range(first, last - 1, -1))
    return itertools.chain.from_iterable(brace_expand(part) for part in _parts(inner))


def files_named(path: str, suffixes: tuple[str, ...], what: str, walk: Walk | None = None) -> list[str]:
    """The files that `path` names, sorted where it does not give an order: absolute local paths as text, or URLs.

    A folder is gone through once, and a file is found once, whatever links lead to them; a link that is passed over is
    said.

    Args:
        path: a file, a folder (searched through for `suffixes`), a glob or a brace pattern; local or an fsspec URL.
        suffixes: endings looked for in a folder, in any case.
        what: what the files are called in messages.
        walk: keeps what is passed over, for the caller to say it.

    Raises:
        DataError: nothing there.
    """
    said = walk or Walk(Wanted(suffixes))
    found = [file for pattern in brace_expand(local_path(path)) for file in _files(pattern, suffixes, what, said)]
    if walk is None:
        for line in said.link_lines():
            log.warning("the %s at %s: %s", what, path_text(path), line)
    return found


_SAVED = ("dataset_dict.json", "state.json")  # of what `save_to_disk` of `datasets` writes: of splits, and of one


def is_saved_folder(path: str) -> bool:
    """Whether `save_to_disk` of `datasets` wrote the folder."""
    folder = Path(path_on_disk(path)).expanduser()
    return any((folder / name).is_file() for name in _SAVED)


def refuse_saved_folder(path: str, origin: str, setting: str = "path") -> None:
    """Raise where another source reads the folder, or the folder that the file is of.

    Args:
        path: the setting's value.
        origin: what messages call the source.
        setting: its name; the source that reads such folders calls it `path`.

    Raises:
        DataError: which source.
    """
    if is_url(path):
        return
    what = "what `save_to_disk` of `datasets` wrote"
    if path.lower().endswith(".arrow") and is_saved_folder(str(Path(path).parent)):
        raise Unclear(f"{origin} is part of {what}.", [("Name the whole of it", [(setting, str(Path(path).parent))])])
    if not is_saved_folder(path):
        return
    target = "guardtrain.sources.HuggingFaceSource"
    if setting == "path":
        raise Unclear(f"{origin} is {what}.", [("Another source reads it", [("_target_", target)])])
    whole = setting_text({"_target_": target, "path": path}, spaced=True)
    raise DataError(
        f"{origin} is {what}. It is read with source=hugging_face source.path={setting_text(path)}, as a pool or test "
        f"set with 'data.real={whole}'."
    )


def local_path(path: str) -> str:
    """`path` as it is, and a `file://` URL as the path that it is of."""
    scheme, found, rest = path.partition("://")
    return rest if found and scheme in ("file", "local") else path


def _files(pattern: str, suffixes: tuple[str, ...], what: str, walk: Walk) -> list[str]:
    found: list[str]
    before = len(walk.links)
    if is_url(pattern):
        found = _urls(pattern, suffixes, what)
    else:
        file = Path(path_on_disk(pattern)).expanduser().absolute()
        if file.is_dir():
            found = sorted(walk.files([str(file)]), key=os.fsencode)
        elif file.exists():
            return [path_text(file)]
        else:
            anchor = Path(file.anchor)
            names = [str(f) for f in anchor.glob(str(file.relative_to(anchor)))] if _is_glob(pattern) else []
            folders = [name for name in names if Path(name).is_dir()]
            found = walk.once(set(names) - set(folders))
            found = sorted([*found, *walk.files(folders)], key=os.fsencode)
    if not found and len(walk.links) == before:  # else they are taken already
        searched = is_url(pattern) or Path(path_on_disk(pattern)).expanduser().is_dir()
        inside = f" (endings looked for: {' '.join(suffixes)})" if searched and not _is_glob(pattern) else ""
        raise DataError(f"There are no {what} at {path_text(pattern)}{inside}.")
    return [path_text(name) for name in found]


def _is_glob(pattern: str) -> bool:
    return any(c in pattern for c in "*?[")


def _urls(pattern: str, suffixes: tuple[str, ...], what: str) -> list[str]:
    import fsspec

    if pattern.lower().endswith(suffixes) and not _is_glob(pattern):
        return [pattern]
    try:
        system, inner = fsspec.core.url_to_fs(pattern)
        names = system.glob(inner) if _is_glob(pattern) else system.find(inner)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"The {what} at {pattern} cannot be listed: {error}") from error
    wanted = (name for name in names if _is_glob(pattern) or name.lower().endswith(suffixes))
    return sorted(system.unstrip_protocol(name) for name in wanted)


def file_key(file: str, what: str) -> str:
    """Return what changes when a file does: path, size and time; of a URL its size and its ETag, checksum or time.

    Raises:
        DataError: no such file.
    """
    if not is_url(file):
        try:
            return stat_key(file)
        except OSError:
            raise DataError(f"There are no {what} at {file}.") from None
    info = url_info(file, what)
    known = next((info[name] for name in _VERSIONS if info.get(name) is not None), None)
    return f"{file}|{info.get('size')}|{known}"


_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "blob_id", "LastModified", "last_modified", "mtime")


def url_info(url: str, what: str) -> dict[str, Any]:
    """fsspec's `info` of a URL.

    Raises:
        DataError: no such file, or it cannot be reached.
    """
    import fsspec

    try:
        system, inner = fsspec.core.url_to_fs(url)
        return dict(system.info(inner))
    except FileNotFoundError:
        raise DataError(f"There are no {what} at {url}.") from None
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"The {what} at {url} cannot be reached: {error}") from error
