"""Images sorted into folders: `root/{safe,unsafe}/[category/]…`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from guardtrain.errors import DataError
from guardtrain.records import SAFE, UNSAFE, Records
from guardtrain.sources.images import EXTENSIONS, files_key, open_image, read_encoded
from guardtrain.sources.tables import listed

_LABELS = {"safe": SAFE, "unsafe": UNSAFE}


@dataclass
class ImageFolderSource:
    """Images in `root/safe/…` and `root/unsafe/…`; the next folder down, where there is one, is the category.

    Args:
        root: the folder. Links to folders are followed; hidden files and folders are passed over.
        source: value of the `source` column.

    The id of a record is its path under `root` with forward slashes; records are sorted by it.

    Raises (on `records`):
        DataError: no such folder, no `safe` or `unsafe` in it, no images in those, or images in folders beside
            them; the message names what was found instead.
    """

    root: str
    source: str | None = None

    def records(self) -> Records:
        """The checked records; the folder is listed once."""
        return self._records

    def content_key(self) -> str:
        """See `files_key`: paths, sizes and modification times."""
        return files_key(self._records, f"the image folder {self.root}")

    def image(self, i: int) -> Image.Image:
        """Image of record `i`, RGB."""
        return open_image(str(self._records.image_uri(i)))

    def encoded(self, i: int) -> bytes:
        """The file of record `i`, as it is."""
        return read_encoded(str(self._records.image_uri(i)))

    @cached_property
    def _records(self) -> Records:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"There is no image folder at {root}.")
        entries = sorted(e for e in root.iterdir() if not e.name.startswith("."))
        labelled = [e for e in entries if e.is_dir() and e.name.lower() in _LABELS]
        if not labelled:
            raise DataError(
                f"The image folder {root} must hold the folders safe and unsafe; "
                f"it holds: {listed(e.name + '/' * e.is_dir() for e in entries)}."
            )
        stray = [e.name for e in entries if e.is_dir() and e not in labelled and next(_images_under(e), None)]
        if stray:
            raise DataError(
                f"The image folder {root} has images outside safe and unsafe, in {listed(stray)}: "
                "move those folders into one of the two, or elsewhere."
            )
        paths = sorted(p.relative_to(root).as_posix() for folder in labelled for p in _images_under(folder))
        if not paths:
            raise DataError(
                f"There are no images under {listed(f'{e}/' for e in labelled)} (endings looked for: "
                f"{' '.join(sorted(EXTENSIONS))})."
            )
        parts = [p.split("/") for p in paths]
        return Records.from_columns(
            root=root,
            id=paths,
            image=paths,
            label=[_LABELS[p[0].lower()] for p in parts],
            category=[p[1] if len(p) > 2 else None for p in parts],
            source=[self.source] * len(paths),
        )


def _images_under(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in files:
            path = Path(where, name)
            if path.suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield path
