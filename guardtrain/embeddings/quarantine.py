"""Records that could not be embedded: noted in the shard they are missing from, listed in `quarantine.parquet`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from guardtrain.embeddings.journal import read_current
from guardtrain.errors import DataError, StoreError
from guardtrain.files import replace_file
from guardtrain.records import Records

QUARANTINE_FILE = "quarantine.parquet"
MOST_SET_ASIDE = 0.5  # of the records; more than that is a mistake of the source's, not of some files
_NOTE = b"guardtrain.quarantine"
_SHOWN = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetAside:
    """A record that is not in the store.

    Args:
        row: its number in the source.
        id, uri, pair_id: the record's; uri and pair_id may be None.
        reason: why it could not be embedded.
    """

    row: int
    id: str
    uri: str | None
    pair_id: str | None
    reason: str


SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("pair_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def annotated(table: pa.Table, set_aside: Sequence[SetAside]) -> pa.Table:
    """A shard's metadata with a note of the records missing from it: both are on disk at once, or neither."""
    if not set_aside:
        return table
    note = json.dumps([asdict(each) for each in set_aside], separators=(",", ":")).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTE: note})


def noted(metadata: Path) -> list[SetAside]:
    """The records missing from the shard with this metadata file; reads its footer.

    Raises:
        StoreError: no whole Parquet file, or a note in another form.
    """
    try:
        return _notes(read_current(metadata, pq.read_metadata).metadata)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise StoreError(f"{metadata} cannot be read: {error}") from error


def noted_in(table: pa.Table) -> list[SetAside]:
    """The records missing from the shard with this metadata."""
    return _notes(table.schema.metadata)


def _notes(metadata: Mapping[bytes, bytes] | None) -> list[SetAside]:
    note = (metadata or {}).get(_NOTE)
    return [] if note is None else [SetAside(**each) for each in json.loads(note)]


def still_set_aside(noted: Iterable[SetAside], table: pa.Table) -> list[SetAside]:
    """Return the `noted` that a store has no row of, for others were mended and embedded since; each id once.

    Args:
        noted: of all its shards, the latest last.
        table: its metadata.
    """
    latest = {each.id: each for each in noted}
    if not latest or "id" not in table.column_names:
        return list(latest.values())
    there = pc.is_in(pa.array(list(latest), table["id"].type), value_set=table["id"]).to_pylist()
    return [each for each, found in zip(latest.values(), there, strict=True) if not found]


def write_list(folder: Path, set_aside: Sequence[SetAside]) -> None:
    """Replace the store's `quarantine.parquet`; without any record there is none."""
    file = folder / QUARANTINE_FILE
    if set_aside:
        table = pa.Table.from_pylist([asdict(each) for each in set_aside], schema=SCHEMA)
        replace_file(file, lambda path: pq.write_table(table, path))
    else:
        file.unlink(missing_ok=True)


def refuse_too_many(set_aside: Sequence[SetAside], rows: int, what: str) -> None:
    """Stop where more of `rows` records were set aside than can be by accident.

    Raises:
        DataError: more than half, with the first reasons.
    """
    if len(set_aside) > MOST_SET_ASIDE * rows:
        raise DataError(
            f"{len(set_aside):,} of {rows:,} {what} cannot be embedded, more than half; the first:\n"
            + "\n".join(f"  {described(each)}" for each in set_aside[:_SHOWN])
        )


def described(each: SetAside) -> str:
    """The record and the reason, for a message."""
    place = f" ({each.uri})" if each.uri and each.uri != each.id else ""
    return f"{each.id}{place}: {each.reason}"


def warn(set_aside: Sequence[SetAside], rows: int, what: str, folder: Path, halves: int = 0) -> None:
    """Say how many records are missing, and where the list is."""
    if not set_aside:
        return
    other = f" With them go the other halves of {halves:,} pairs." if halves else ""
    log.warning(
        "%s: %s of %s cannot be embedded and are set aside, the first: %s. All of them: %s.%s",
        what, f"{len(set_aside):,}", f"{rows:,}", described(set_aside[0]), folder / QUARANTINE_FILE, other,
    )  # fmt: skip


def rows_left(records: Records, set_aside: Iterable[SetAside]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return what a store holds of these records, and what of it can be used: a pair needs both its halves.

    Returns:
        the rows of the store that can be used, the same as rows of `records`, and how many halves are left out because
        the other is missing.
    """
    there = np.ones(len(records), dtype=bool)
    there[[each.row for each in set_aside]] = False
    pairs = set(records.pair_ids[~there]) - {None}  # of today: those noted may have been mended since
    widowed = there & np.array([pair in pairs for pair in records.pair_ids], dtype=bool)
    stored = np.flatnonzero(there)
    usable = ~widowed[stored]
    return np.flatnonzero(usable), stored[usable], int(widowed.sum())


def whole_pairs(table: pa.Table, set_aside: Iterable[SetAside]) -> np.ndarray | None:
    """The rows of a store's metadata whose pair, where they are of one, is whole; None where all are.

    Args:
        table: the metadata.
        set_aside: see `still_set_aside`.
    """
    pairs = {each.pair_id for each in set_aside} - {None}
    if not pairs or "pair_id" not in table.column_names:
        return None
    widowed = pc.is_in(table["pair_id"], value_set=pa.array(sorted(map(str, pairs)), table["pair_id"].type))
    return np.flatnonzero(~np.asarray(widowed, dtype=bool))
