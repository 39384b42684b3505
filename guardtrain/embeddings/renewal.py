"""Metadata of rows that are embedded already, brought up to the record table of today: nothing is computed again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from guardtrain.embeddings.checksums import checksums_file
from guardtrain.embeddings.differences import Difference, differences
from guardtrain.embeddings.journal import Journal, read_current
from guardtrain.embeddings.quarantine import SetAside, annotated, noted
from guardtrain.embeddings.shards import Shard, read_metadata
from guardtrain.embeddings.store import PATH_COLUMN, parquet_bytes, shard_metadata
from guardtrain.records import Records
from guardtrain.sources.stacking import stacked

HASH_COLUMN = "sha256"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Renewal:
    """New metadata of shards.

    Args:
        tables: what changes: the shard, and the metadata that it shall have, with the notes of what is set aside.
        found: what that changes, a column each.
    """

    tables: tuple[tuple[Shard, pa.Table], ...]
    found: tuple[Difference, ...]

    def add_to(self, journal: Journal, folder: Path) -> None:
        """Have `journal` replace the metadata of the store in `folder`, and the sums that are noted of it."""
        for shard, table in self.tables:
            content = parquet_bytes(table)
            journal.add(shard.metadata, content)
            sums = checksums_file(folder, shard.matrix)
            if sums.is_file():
                name = shard.metadata.relative_to(folder).as_posix()
                lines = read_current(sums, lambda path: path.read_text(encoding="utf-8")).splitlines()
                kept = [line for line in lines if not line.endswith(f"  {name}")]
                text = "\n".join([*kept, f"{hashlib.sha256(content).hexdigest()}  {name}"]) + "\n"
                journal.add(sums, text.encode())

    def write(self, folder: Path) -> None:
        """Replace the metadata of the store in `folder`, whose lock the caller holds, and say what it changes."""
        journal = Journal(folder)
        self.add_to(journal, folder)
        journal.commit()
        self.tell(folder)

    def tell(self, folder: Path) -> None:
        """Say what it changes."""
        if self.found:
            text = "; ".join(each.text() for each in self.found)
            log.info("%s: renewed, nothing embedded anew: %s", folder, text)


def renewal(shards: Sequence[Shard], records: Records, *, fill: bool = False) -> Renewal:
    """Return the metadata of `shards` with which their rows say what `records` say, matched by id.

    Rows of other ids stay. The hashes of the files stay, for images are not looked at.

    Args:
        shards: of one store; one without a column `id` stays as it is.
        records: of some of its rows, or of all.
        fill: cells that are empty in `records`, and `edited` where nothing is, leave what is there: the records come
            from another table than the store's, which may have fewer columns. Otherwise they empty it, and columns that
            `records` lack are gone.
    """
    place = {str(name): row for row, name in enumerate(records.ids)}
    tables: list[tuple[Shard, pa.Table]] = []
    ids: list[str] = []
    before: list[pa.Table] = []
    now: list[pa.Table] = []
    for shard in shards:
        table = read_metadata(shard.metadata)
        if "id" not in table.column_names:
            continue
        names = [str(name) for name in table["id"].to_pylist()]
        rows = np.array([place.get(name, -1) for name in names], dtype=np.int64)
        notes = noted(shard.metadata)
        own = np.flatnonzero(rows >= 0)
        old = table.take(pa.array(own))
        new = _said(records.take(rows[own]), old)
        new = _filled(new, old, bool(records.edited.any())) if fill else new
        found = differences([names[i] for i in own], old, new, _GENERATED - set(records.table.column_names))
        told = _told_notes(notes, records, place)
        if not found and told == notes:
            continue
        ids += [names[i] for i in own]
        before.append(old)
        now.append(new)
        tables.append((shard, annotated(_joined(table, new, own).replace_schema_metadata(None), told)))
    if not tables:
        return Renewal((), ())
    found = differences(ids, stacked(before), stacked(now), _GENERATED - set(records.table.column_names))
    return Renewal(tuple(tables), tuple(found))


_GENERATED = {PATH_COLUMN}


def _said(records: Records, old: pa.Table) -> pa.Table:
    """The metadata of `records`, as embedding them anew would write it; `old` is that of the same rows, with hashes."""
    if HASH_COLUMN in old.column_names and HASH_COLUMN not in records.table.column_names:
        records = Records(records.table.append_column(HASH_COLUMN, old[HASH_COLUMN]), records.root)
    return shard_metadata(records)


def _filled(new: pa.Table, old: pa.Table, edited: bool) -> pa.Table:
    """`new` with the cells of `old` where it has none."""
    for name in old.column_names:
        if name not in new.column_names:
            new = new.append_column(name, old[name])
        elif new[name].null_count or (name == "edited" and not edited):
            both = stacked([new.select([name]), old.select([name])])[name]
            given = np.zeros(len(new), dtype=bool) if name == "edited" else np.asarray(new[name].is_valid(), dtype=bool)
            rows = np.arange(len(new)) + np.where(given, 0, len(new))
            new = new.set_column(new.schema.get_field_index(name), name, both.take(pa.array(rows)))
    return new


def _joined(table: pa.Table, new: pa.Table, own: np.ndarray) -> pa.Table:
    """`table` with its rows `own` replaced by `new`, in its order."""
    others = np.setdiff1d(np.arange(len(table)), own)
    if not len(others):
        return new
    order = np.argsort(np.concatenate([own, others]), kind="stable")
    return stacked([new, table.take(pa.array(others))]).take(pa.array(order))


def _told_notes(notes: Sequence[SetAside], records: Records, place: dict[str, int]) -> list[SetAside]:
    """Notes of what is set aside, with today's place and pair."""
    rows = [place.get(each.id) for each in notes]
    return [
        each if row is None else replace(each, uri=records.image_uri(row), pair_id=records.pair_ids[row])
        for each, row in zip(notes, rows, strict=True)
    ]
