"""Further records embedded into a store that is there: only those it has not, by id, as further shards.

What the records say of rows that are there already is renewed; a label or image that is another one there is refused.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from guardtrain.embeddings.build import link_shard, list_set_aside
from guardtrain.embeddings.contents import CONTENTS_FILE, Contents, read_contents
from guardtrain.embeddings.differences import differences
from guardtrain.embeddings.disputes import check_disputed, examples, ways_out
from guardtrain.embeddings.journal import Journal
from guardtrain.embeddings.renewal import HASH_COLUMN, Renewal, renewal
from guardtrain.embeddings.selection import row_ids
from guardtrain.embeddings.shards import file_names, read_metadata
from guardtrain.embeddings.store import EmbeddingStore, shard_metadata, usable_records
from guardtrain.embeddings.writing import named_failures, only_writer
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import LOADABLE, EncoderSettings, require_same, settings_for
from guardtrain.errors import DataError, EncoderError
from guardtrain.records import Records
from guardtrain.sources.base import EncodedImageSource, ImageSource
from guardtrain.sources.images import is_url
from guardtrain.sources.stacking import stacked
from guardtrain.words import listed

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
        """Return the key of the whole source and of which records these are."""
        return hashlib.sha256(f"{self._source.content_key()}\0{self._records.digest()}".encode()).hexdigest()

    def image(self, i: int) -> Image.Image:
        """Image of record `i` of those chosen."""
        return self._source.image(int(self._rows[i]))


def append_records(
    path: str | Path,
    source: ImageSource,
    *,
    encoder: EncoderSettings | None = None,
    disputed: str = "error",
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> EmbeddingStore:
    """Embed the records of `source` whose ids the store at `path` lacks, with its own encoder, into further shards.

    Of those it has, the metadata is renewed: what `source` says counts, and where it says nothing, what is there. But
    where it says another label, or its file is another image (by its sha256, where the file is elsewhere, or newer than
    the embeddings), the two contradict each other, and that is an error unless `disputed` says which counts.

    Until all of them are embedded the store is the old one, and then it is the new one. What is embedded so far lies in
    `.append` inside it; the same call goes on there. Records that were set aside are tried again, and a pair whose half
    is embedded by that is whole again.

    Args:
        path: a store that guardtrain wrote.
        source: of images.
        encoder: where the weights now lie, or another batch size; it must be the same encoder.
        disputed: of records that contradict the store: `error`; `first`: the store's rows stay as they are; `last`: the
            labels become those of `source` (an image cannot).
        progress: see `extract`.
        say: told what is done.

    Raises:
        ConfigError: a value of `disputed` that there is not.
        DataError: the source brings embeddings (merge stores instead), contradicts the store, or makes it no record
            table (the third record of a pair), or see `extract`.
        EncoderError: the store does not say which encoder made it, or it is another, or it cannot be loaded.
        StoreError: see `EmbeddingStore.open` and `only_writer`.
    """
    check_disputed(disputed, ("error", "first", "last"))
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
        row_of = {name: row for row, name in enumerate(row_ids(table, f"the store {folder}"))}
        rows = np.array([row_of.get(str(name), -1) for name in records.ids], dtype=np.int64)
        new, known = np.flatnonzero(rows < 0), np.flatnonzero(rows >= 0)
        renewed = _renewed(store, table, source, known, rows[known], new, disputed)
        say(f"{len(known):,} of {len(records):,} records are there already")
        added = None
        if len(new):
            lost = {each.id for each in store.set_aside(table)}
            added = _add(
                folder, store, SomeRecords(source, new), encoder, progress, lost.intersection(records.ids[new])
            )
        with named_failures(folder):
            _commit(folder, store, added, renewed)
            list_set_aside(EmbeddingStore.open(folder))
            shutil.rmtree(folder / _WORK_FOLDER, ignore_errors=True)
    return EmbeddingStore.open(folder)


def _renewed(
    store: EmbeddingStore,
    table: pa.Table,
    source: ImageSource,
    known: np.ndarray,
    rows: np.ndarray,
    new: np.ndarray,
    disputed: str,
) -> Renewal:
    """Return the new metadata: `known` are rows of the source that are `rows` of the store, `new` the others.

    Raises:
        DataError: they contradict each other, or the whole would be no record table.
    """
    origin = f"the store {store.path}"
    records, aside = source.records(), store.set_aside(table)
    try:
        usable_records(table, aside, origin)
    except DataError:
        return Renewal((), ())  # no record table: nothing in it that could be compared
    ids = [str(name) for name in records.ids[known]]
    held = np.zeros(len(known), dtype=bool)
    there, now = table.select(["label"]).take(pa.array(rows)), records.table.select(["label"]).take(pa.array(known))
    for found in differences(ids, there, now):
        if disputed == "error":
            raise DataError(
                f"{len(found.rows):,} of {len(records):,} records have another label in {origin}, which has them "
                f"already: {examples(found, 'there', 'now')}. "
                + ways_out("the store's stay", "those of now are put into the store")
            )
        held[found.rows] = disputed == "first"
    others = _other_images(store, table, source, known, rows)
    if len(others) and disputed != "first":
        raise DataError(
            f"{len(others):,} of {len(records):,} records are other images now than those in {origin} under their ids: "
            f"{listed([ids[i] for i in others], 3)}. Give them ids of their own, embed all of them into another folder "
            f"(guardtrain embed … out=PATH), or add disputed=first (the store's rows stay)."
        )
    held[others] = True
    renewed = renewal(store.shards, records.take(known[~held]), fill=True)
    becomes = {shard.number: part for shard, part in renewed.tables}
    parts = [becomes.get(shard.number) or read_metadata(shard.metadata) for shard in store.shards]
    coming = set(records.ids[new])
    usable_records(
        stacked([*parts, shard_metadata(records.take(new))]),
        [each for each in aside if each.id not in coming],
        f"{origin} with what is to be added",
    )
    return renewed


def _other_images(
    store: EmbeddingStore, table: pa.Table, source: ImageSource, known: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Which of `known` are other files than those embedded; read are those that lie elsewhere, or are newer."""
    if HASH_COLUMN not in table.column_names or not isinstance(source, EncodedImageSource):
        return np.zeros(0, dtype=np.int64)
    digests, places = table[HASH_COLUMN].to_pylist(), table["image"].to_pylist()
    made = np.repeat([s.matrix.stat().st_mtime_ns for s in store.shards], [s.rows for s in store.shards])
    uris = source.records().image_uris()
    found = []
    for i, (k, row) in enumerate(zip(known.tolist(), rows.tolist(), strict=True)):
        if digests[row] is None or (uris[k] == places[row] and not _is_newer(uris[k], int(made[row]))):
            continue
        try:
            if hashlib.sha256(source.encoded(k)).hexdigest() != digests[row]:
                found.append(i)
        except (OSError, DataError):
            pass  # what cannot be read any more is no other image
    return np.array(found, dtype=np.int64)


def _is_newer(uri: str | None, than: int) -> bool:
    try:
        return uri is not None and not is_url(uri) and Path(uri).stat().st_mtime_ns > than
    except OSError:
        return False


def _add(
    folder: Path,
    store: EmbeddingStore,
    source: SomeRecords,
    encoder: EncoderSettings | None,
    progress: bool | None,
    known: set[str],
) -> EmbeddingStore:
    """A store of these records, beside the shards of the one that they are added to; it may be empty."""
    from guardtrain.embeddings.extraction import extract

    work = folder / _WORK_FOLDER / source.content_key()[:16]
    storage = str(store.matrix().dtype)
    given = settings_for(store.spec) if encoder is None else encoder
    spec = resolve_spec(given)
    require_same(spec, store.spec, f"what is to be appended to {folder}")
    try:
        return extract(
            source, given, work, storage=storage, progress=progress, label=str(folder), spec=spec, known=known
        )
    except DataError:
        shutil.rmtree(work, ignore_errors=True)  # else the same call would find them set aside, and not try again
        raise


def _commit(folder: Path, store: EmbeddingStore, added: EmbeddingStore | None, renewed: Renewal) -> None:
    """Make the shards of `added` shards of `store`, and renew the metadata of its own: all of it, or nothing."""
    journal = Journal(folder)
    renewed.add_to(journal, folder)
    if added is not None and len(added):  # else what could not be embedded before cannot be now
        journal.add(folder / CONTENTS_FILE, _linked(folder, store, added).text().encode())
    journal.commit()
    renewed.tell(folder)


def _linked(folder: Path, store: EmbeddingStore, added: EmbeddingStore) -> Contents:
    """Link the shards of `added` into the folder; the list of shards that counts them in."""
    current = Contents(tuple((shard.number, shard.rows) for shard in store.shards), store.spec.fingerprint)
    if (there := read_contents(folder)) is None:
        current.write(folder)  # so that shards to come, listed nowhere yet, are none of it
    else:
        current = there
    added.require(store.spec)
    first = max(number for number, _ in current.shards) + 1
    count = first + len(added.shards)
    for shard in added.shards:
        link_shard(folder, file_names(folder, first + shard.number, count), shard)
    return replace(current, shards=current.shards + tuple((first + shard.number, shard.rows) for shard in added.shards))
