"""Images of a table that are not where they are looked for: the setting by which they may be found."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from guardtrain.errors import DataError
from guardtrain.file_names import path_on_disk
from guardtrain.sources.images import MissingImages
from guardtrain.sources.unclear import Setting, Steps, Unclear

_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\")
_FOLDERS_TRIED = 100  # beside and below the table


def found_elsewhere(error: MissingImages, root: Path, column: str) -> DataError:
    """The error with what would find the images: for relative paths `image_root`; for absolute ones, which do not
    follow it, `derive`, which makes relative ones of them.

    Args:
        error: as it was raised.
        root: where relative paths start from.
        column: of the user's table, which holds the paths.
    """
    absolute = [path for path in error.paths if _ABSOLUTE.match(path)]
    steps: Steps
    if not absolute:
        where = _root_with(error.paths[0], root)
        problem = f"{error} Relative paths start from {root.absolute()}."
        if where is None:
            return MissingImages(f"{problem} image_root=FOLDER sets another folder.", error.paths)
        return Unclear(problem, [("They are there with", [("image_root", str(where))])])
    problem = f"{error} Absolute paths are taken as they are."
    found = next((made for made in (_relative(path, root) for path in absolute) if made is not None), None)
    if found is not None:
        steps = [("This makes paths of them that are there", [_replaced(column, *found)])]
    else:
        sentence = f"This makes relative paths of them, from {root.absolute()} (image_root=FOLDER sets another folder)"
        steps = [(sentence, [_replaced(column, _common_folder(absolute), "")])]
    return Unclear(problem, steps)


def _replaced(column: str, start: str, by: str) -> Setting:
    return "derive", {"image": {"column": column, "pattern": f"^{re.escape(start)}", "replace": by}}


def _root_with(path: str, root: Path) -> Path | None:
    """A folder near `root` from which the relative `path` leads to a file."""
    return next((folder for folder in _folders(root) if _is_there(folder / path)), None)


def _relative(path: str, root: Path) -> tuple[str, str] | None:
    """Return what an absolute path begins with, and its stand-in in one that leads from `root` to a file."""
    plain = path.replace("\\", "/")
    for cut in (match.end() for match in re.finditer("/", plain)):
        for folder in _folders(root):
            if _is_there(folder / plain[cut:]):
                by = os.path.relpath(folder, root)
                return path[:cut], "" if by == "." else f"{by}/"
    return None


def _folders(root: Path) -> list[Path]:
    """The folder itself, those in it, where the command runs, and the one above."""
    try:
        inside = sorted(entry for entry in root.iterdir() if entry.is_dir())[:_FOLDERS_TRIED]
    except OSError:
        inside = []
    return [root, *inside, Path.cwd(), root.parent]


def _is_there(path: Path) -> bool:
    return Path(path_on_disk(str(path))).is_file()


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths lie in, or where there is none the first lies in, with the slash behind it."""
    first, last = min(paths), max(paths)  # what these have in common, all have
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    for start in (first[:same], paths[0]):
        if end := max(start.rfind("/"), start.rfind("\\")) + 1:
            return start[:end]
    return ""
