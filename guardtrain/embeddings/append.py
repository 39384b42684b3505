"""Further records embedded into a store that is there: only those it has not, by id, as further shards."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from guardtrain.embeddings.build import link_shard, list_set_aside
from guardtrain.embeddings.contents import Contents, read_contents
from guardtrain.embeddings.selection import row_ids
from guardtrain.embeddings.shards import file_names
from guardtrain.embeddings.store import EmbeddingStore
from guardtrain.embeddings.writing import named_failures, only_writer
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import LOADABLE, EncoderSettings, require_same, settings_for
from guardtrain.errors import DataError, EncoderError
from guardtrain.records import Records
from guardtrain.sources.base import ImageSource

_WORK_FOLDER = ".append"


class SomeRecords:
    """Some of a source's records, as a source; it gives images in the ways that the whole gives them.

    Args:
        source: of images.
        rows: `(n,)` which of its records.
    """

    def __init__(self, source: ImageSource, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows
        self._records = source.records().take(rows)
        whole: Any = source
        if hasattr(whole, "encoded"):
            self.encoded = lambda i: whole.encoded(int(rows[i]))
        if hasattr(whole, "images"):
            self.images = lambda indices: whole.images(rows[np.asarray(indices)])

    def records(self) -> Records:
        """The records chosen, in their order."""
        return self._records

    def content_key(self) -> str:
        """Of the whole source and of which records these are."""
        return hashlib.sha256(f"{self._source.content_key()}\0{self._records.digest()}".encode()).hexdigest()

    def image(self, i: int) -> Image.Image:
        """Image of record `i` of those chosen."""
        return self._source.image(int(self._rows[i]))


def append_records(
    path: str | Path,
    source: ImageSource,
    *,
    encoder: EncoderSettings | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> EmbeddingStore:
    """Embed the records of `source` whose ids the store at `path` lacks, with its own encoder, into further shards.

    Until all of them are embedded the store is the old one, and then it is the new one. What is embedded so far lies in
    `.append` inside it; the same call goes on there. Records that were set aside are tried again, and a pair whose half
    is embedded by that is whole again.

    Args:
        path: a store that guardtrain wrote.
        source: of images.
        encoder: where the weights now lie, or another batch size; it must be the same encoder.
        progress: see `extract`.
        say: told what is done.

    Raises:
        DataError: the source brings embeddings (merge stores instead), or see `extract`.
        EncoderError: the store does not say which encoder made it, or it is another, or it cannot be loaded.
        StoreError: see `EmbeddingStore.open` and `only_writer`.
    """
    if not isinstance(source, ImageSource):
        raise DataError("The source brings its embeddings: only images are appended. Merge the two stores instead.")
    folder = Path(path).expanduser()
    store = EmbeddingStore.open(folder)
    if store.spec.family not in LOADABLE:
        raise EncoderError(
            f"The store {folder} does not say which encoder made it (family '{store.spec.family}'), so nothing can be "
            "embedded to go with it."
        )
    with only_writer(folder):
        store = EmbeddingStore.open(folder)  # as the last writer left it
        records = source.records()
        table = store.metadata()
        there = set(row_ids(table, f"the store {folder}"))
        rows = np.flatnonzero([i not in there for i in records.ids])
        say(f"{len(records) - len(rows):,} of {len(records):,} records are there already")
        if len(rows):
            lost = {each.id for each in store.set_aside(table)}
            _add(folder, store, SomeRecords(source, rows), encoder, progress, lost.intersection(records.ids[rows]))
        with named_failures(folder):
            list_set_aside(EmbeddingStore.open(folder))
            shutil.rmtree(folder / _WORK_FOLDER, ignore_errors=True)
    return EmbeddingStore.open(folder)


def _add(
    folder: Path,
    store: EmbeddingStore,
    source: SomeRecords,
    encoder: EncoderSettings | None,
    progress: bool | None,
    known: set[str],
) -> None:
    from guardtrain.embeddings.extraction import extract

    work = folder / _WORK_FOLDER / source.content_key()[:16]
    storage = str(store.matrix().dtype)
    given = settings_for(store.spec) if encoder is None else encoder
    spec = resolve_spec(given)
    require_same(spec, store.spec, f"what is to be appended to {folder}")
    try:
        added = extract(
            source, given, work, storage=storage, progress=progress, label=str(folder), spec=spec, known=known
        )
    except DataError:
        shutil.rmtree(work, ignore_errors=True)  # else the same call would find them set aside, and not try again
        raise
    if not len(added):
        return  # what could not be embedded before cannot be now
    with named_failures(folder):
        _list(folder, store, added)


def _list(folder: Path, store: EmbeddingStore, added: EmbeddingStore) -> None:
    """Make the shards of `added` shards of `store`: all of them, or none."""
    current = Contents(tuple((shard.number, shard.rows) for shard in store.shards), store.spec.fingerprint)
    if (listed := read_contents(folder)) is None:
        current.write(folder)  # so that shards to come, listed nowhere yet, are none of it
    else:
        current = listed
    added.require(store.spec)
    first = max(number for number, _ in current.shards) + 1
    count = first + len(added.shards)
    for shard in added.shards:
        link_shard(folder, file_names(folder, first + shard.number, count), shard)
    new = tuple((first + shard.number, shard.rows) for shard in added.shards)
    replace(current, shards=current.shards + new).write(folder)
