"""Images sorted into folders: `root/{safe,unsafe}/[category/]…`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from guardtrain.errors import DataError
from guardtrain.file_names import path_text
from guardtrain.records import CELLS, SAFE, UNSAFE, Records
from guardtrain.sources.decoding import endings
from guardtrain.sources.images import files_key
from guardtrain.sources.listed import ListedImages
from guardtrain.sources.paths import refuse_saved_folder
from guardtrain.sources.walk import Walk
from guardtrain.words import listed

log = logging.getLogger(__name__)

_LABELS = {"safe": SAFE, "unsafe": UNSAFE}


@dataclass
class ImageFolderSource(ListedImages):
    """Images in `root/safe/…` and `root/unsafe/…`; the next folder down, where there is one, is the category.

    Args:
        root: the folder. Links to folders are followed, and a folder is gone through once, whatever leads to it; what
            is passed over is said (see `Walk`).
        source: value of the `source` column.

    The id of a record is its path under `root` with forward slashes; records are sorted by it.

    Raises (on `records`):
        DataError: no such folder, no `safe` or `unsafe` in it, no images in those, images in folders beside them, or
            a link that makes safe images unsafe; the message names what was found instead.
    """

    root: str
    source: str | None = None

    def records(self) -> Records:
        """The checked records; the folder is listed once."""
        return self._records

    def content_key(self) -> str:
        """See `files_key`: paths, sizes and modification times."""
        return files_key(self._records, f"the image folder {self.root}")

    @cached_property
    def _records(self) -> Records:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"There is no image folder at {root}.")
        refuse_saved_folder(self.root, f"the image folder {self.root}", "root")
        entries = sorted(e for e in root.iterdir() if not e.name.startswith("."))
        labelled = [e for e in entries if e.is_dir() and e.name.lower() in _LABELS]
        if not labelled:
            raise DataError(
                f"The image folder {root} must hold the folders safe and unsafe; "
                f"it holds: {listed(path_text(e.name) + '/' * e.is_dir() for e in entries)}."
            )
        walk = Walk()
        found = list(walk.files([str(e) for e in labelled], str(root)))
        _refuse_contradictions(root, walk.links)
        lines = walk.lines()
        if loose := [path_text(e.name) for e in entries if e.is_file() and walk.wanted(str(e))]:
            lines.append(f"passed over: {len(loose):,} in no folder, neither safe nor unsafe: {listed(loose)}")
        others = [e for e in entries if e.is_dir() and e not in labelled]
        if stray := [path_text(e.name) for e in others if next(walk.files([str(e)]), None)]:
            raise DataError(
                f"The image folder {root} has images outside safe and unsafe, in {listed(stray)}: "
                "move those folders into one of the two, or elsewhere."
            )
        for line in lines:
            log.warning("%s: %s", path_text(root), line)
        if not found:
            raise DataError(
                f"There are no images under {listed(f'{e}/' for e in labelled)} (endings looked for: "
                f"{' '.join(sorted(endings()))})."
            )
        paths = sorted(path_text(Path(path).relative_to(root).as_posix()) for path in found)
        parts = [p.split("/") for p in paths]
        return Records.from_columns(
            root=root,
            id=paths,
            image=paths,
            label=[_LABELS[p[0].lower()] for p in parts],
            **{CELLS: [f"{p[0]}/" for p in parts]},
            category=[p[1] if len(p) > 2 else None for p in parts],
            source=[self.source] * len(paths),
        )


def _refuse_contradictions(root: Path, links: Iterable[tuple[str, str]]) -> None:
    """Raise DataError where a link under one label leads to what lies under the other."""

    def label(path: str) -> str | None:
        top = Path(os.path.relpath(path, root)).parts[:1]
        return top[0].lower() if top and top[0].lower() in _LABELS else None

    for link, there in links:
        if None not in (label(link), label(there)) and label(link) != label(there):
            raise DataError(
                f"{path_text(link)} is a link to {path_text(there)}: the same images would be {label(link)} and "
                f"{label(there)}. Remove the link, or what it leads to."
            )
