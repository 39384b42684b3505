"""Looking at the image files behind the pools and test sets, without decoding an image."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.curves.audit.clues import ROW_ORDER, PartClues
from guardtrain.curves.audit.permuting import whole_groups
from guardtrain.embeddings import Embeddings
from guardtrain.errors import DataError
from guardtrain.file_names import path_on_disk
from guardtrain.records import Records
from guardtrain.sources.file_facts import FileFacts, file_facts
from guardtrain.sources.images import is_url, read_encoded

NO_FILES = "embeddings alone: there are no image files to look at"
DRAWN = "the images are drawn: there are no files to look at"
NOT_FOUND = "the image files are not there: nothing of them could be looked at"
_THREADS = 8


@dataclass(frozen=True)
class LookedAt:
    """Facts that could be had of the files of one part.

    Args:
        n, of: images drawn, of those there are.
        reason: why no file could be looked at; "" where some could.
        unreadable: files among those drawn that are no images.
    """

    n: int
    of: int
    reason: str = ""
    unreadable: int = 0


def look(part: Embeddings, source: Any | None, *, most: int = 2000, seed: int = 0) -> tuple[PartClues, LookedAt]:
    """Return the facts of a part's images besides the images, at most about `most` of them, in whole groups.

    Args:
        part: records in any order; what is drawn depends on their ids alone.
        source: that they came from (see `guardtrain.sources.base`), which knows their order and gives their files; None
            where it is not known.
        most: images looked at.
        seed: of the draw.

    Returns:
        Their properties, those of files where there are any; and how far files could be looked at.
    """
    order = np.argsort(part.records.ids.astype(str), kind="stable")
    rows = order[whole_groups(part.records.groups[order].astype(str), most, np.random.default_rng(seed))]
    records = part.records.take(rows)
    columns: dict[str, np.ndarray] = {}
    reason, unreadable = NO_FILES, 0
    if source is not None:
        place = {str(one): i for i, one in enumerate(source.records().ids)}
        at = np.array([place.get(str(one), -1) for one in records.ids])
        reader, reason = _reader(source, records, at)
        if reader is not None:
            facts = _read(reader, np.argsort(at, kind="stable"))
            unreadable = facts.count(None)
            columns = _columns(facts) if any(facts) else {}
            reason = "" if any(facts) else NOT_FOUND
    columns["source"] = records.sources
    if source is not None:
        columns[ROW_ORDER] = at.astype(np.float64)
    clues = PartClues(records.labels, records.groups, columns)
    return clues, LookedAt(len(records), len(part), reason, unreadable)


def _reader(source: Any, records: Records, at: np.ndarray) -> tuple[Callable[[int], bytes] | None, str]:
    """Return what gives the bytes of the file of record i, or why there is nothing."""
    if hasattr(source, "encoded"):
        return lambda i: bytes(source.encoded(int(at[i]))), ""
    if not hasattr(source, "embeddings"):
        return None, DRAWN
    uris = records.image_uris()
    there = [uri is not None and not is_url(uri) and Path(path_on_disk(uri)).is_file() for uri in uris]
    if not any(there):
        return None, NO_FILES if not any(uris) else NOT_FOUND
    return lambda i: read_encoded(str(uris[i])), ""


def _read(reader: Callable[[int], bytes], order: np.ndarray) -> list[FileFacts | None]:
    """The facts of every file, None where there are none; read in `order` (n,), that of the source.

    Going back in a Parquet file is slow.
    """

    def fact(i: int) -> FileFacts | None:
        try:
            return file_facts(reader(i))
        except (OSError, DataError):  # no image, or a record of the source without one
            return None

    with ThreadPoolExecutor(_THREADS) as threads:
        found = dict(zip(order.tolist(), threads.map(fact, order.tolist()), strict=True))
    return [found[i] for i in range(len(order))]


def _columns(facts: list[FileFacts | None]) -> dict[str, np.ndarray]:
    """The properties of files by name; of a file that cannot be read there is none."""

    def numbers(get: Callable[[FileFacts], float | None]) -> np.ndarray:
        values = [None if fact is None else get(fact) for fact in facts]
        return np.array([np.nan if value is None else float(value) for value in values])

    def names(get: Callable[[FileFacts], str]) -> np.ndarray:
        return np.array([None if fact is None else get(fact) for fact in facts], dtype=object)

    return {
        "format": names(lambda fact: fact.format),
        "bytes": numbers(lambda fact: fact.size),
        "width": numbers(lambda fact: fact.width),
        "height": numbers(lambda fact: fact.height),
        "aspect": numbers(lambda fact: round(fact.aspect, 3)),
        "bytes per pixel": numbers(lambda fact: fact.bytes_per_pixel),
        "JPEG tables": _tables([() if fact is None else fact.tables for fact in facts], numbers(lambda f: f.quality)),
        "mode": names(lambda fact: fact.mode),
        "EXIF": names(lambda fact: "present" if fact.exif else "absent"),
    }


def _tables(tables: list[tuple[int, ...]], quality: np.ndarray) -> np.ndarray:
    """Names of JPEG tables, by the quality they are near; others than libjpeg's of that quality have their own.

    Where there are more tables than can be told apart, the quality itself, in ranges.
    """
    distinct = sorted(set(tables) - {()})
    if len(distinct) > len(_LETTERS):
        return quality
    called: dict[tuple[int, ...], str] = {(): "none"}
    taken: dict[str, int] = {}
    for one in distinct:
        text = f"quality {quality[tables.index(one)]:.0f}"
        called[one] = text + (f" ({_LETTERS[taken[text]]})" if text in taken else "")
        taken[text] = taken.get(text, 0) + 1
    return np.array([called[one] for one in tables], dtype=object)


_LETTERS = "bcdefghijklmnopqrstuvw"
