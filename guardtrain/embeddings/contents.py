"""The list of a store's shards, for stores that are not one extraction: joined, thinned out or added to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from guardtrain.embeddings.journal import read_current
from guardtrain.errors import StoreError
from guardtrain.files import replace_file

CONTENTS_FILE = "contents.json"


@dataclass(frozen=True)
class Contents:
    """Which shards make up a store; other files beside them are none of it.

    Written first where a store is made, so that a part is known to be a part; written last where one is added to, so
    that it is the old store until it is the new one.

    Args:
        shards: (number, rows) of each, in order.
        work: hex sha256 of what the store is made of and how; the same command thereby goes on.
    """

    shards: tuple[tuple[int, int], ...]
    work: str

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(rows for _, rows in self.shards)

    def text(self) -> str:
        """The list as `write` writes it."""
        data = {"work": self.work, "shards": [{"number": number, "rows": rows} for number, rows in self.shards]}
        return json.dumps(data, indent=1) + "\n"

    def write(self, folder: Path) -> None:
        """Replace the list in `folder`."""
        replace_file(folder / CONTENTS_FILE, lambda path: path.write_text(self.text(), encoding="utf-8"))


def read_contents(folder: Path) -> Contents | None:
    """The list in `folder`; None where there is none, as in a store of one extraction or of clip-retrieval.

    Raises:
        StoreError: a list that cannot be read.
    """
    file = folder / CONTENTS_FILE
    if not file.is_file():
        return None
    try:
        data = json.loads(read_current(file, lambda path: path.read_text(encoding="utf-8")))
        shards = tuple((int(shard["number"]), int(shard["rows"])) for shard in data["shards"])
        return Contents(shards, str(data["work"]))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise StoreError(f"{file} is not the list of a store's shards: {error!r}") from None
