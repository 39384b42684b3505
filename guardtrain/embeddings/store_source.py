"""A store on disk as a source: ours as it is, clip-retrieval's with labels joined from a manifest."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.embeddings.differences import differences
from guardtrain.embeddings.disputes import DISPUTED, check_disputed, examples
from guardtrain.embeddings.quarantine import SetAside, described, warn
from guardtrain.embeddings.rows import StoredRows
from guardtrain.embeddings.store import EmbeddingStore
from guardtrain.errors import DataError
from guardtrain.file_names import path_text
from guardtrain.records import CELLS, SCHEMA, Records
from guardtrain.sources.cells import text_of
from guardtrain.sources.labels import LabelsUnclear, read_labels
from guardtrain.sources.record_columns import as_record_columns, records_of_split, with_column
from guardtrain.sources.tables import read_table
from guardtrain.words import listed, near

_ROW = "__row__"
_NOT_COMPARED = ("id", "image", "label", _ROW, CELLS)  # of other columns; labels are compared as they are read

log = logging.getLogger(__name__)


@dataclass
class StoreSource:
    """The records and embeddings of a store, without any extraction.

    Args:
        path: the store's folder, in clip-retrieval's layout.
        columns: our column -> the metadata's, such as `{id: image_path, label: nsfw}`. Without an id column,
            `image_path` is the id.
        labels: cell of the label column -> 0 (safe) or 1 (unsafe); default as in `ManifestSource`.
        manifest: a table (CSV, JSON, Parquet) with labels and further columns for rows of the store; only rows it
            names are kept. Those that could not be embedded are left out, and so is the other half of a pair of the
            manifest; a warning counts them.
        manifest_columns: our column -> the manifest's; its `id` is matched with the store's.
        where, split: as in `ManifestSource`, on the joined table.
        disputed: of rows with one label in the store and another in the manifest: `error`; the `first` counts, which is
            the store's; the `last`, the manifest's; or `drop` them, and the other halves of their pairs. Of other
            columns the manifest's count, and a line of the log says how many rows differ.

    Raises (on `records`, `embeddings`):
        StoreError: see `EmbeddingStore.open`.
        DataError: a missing column, labels that are not mapped, or contradict each other, or manifest rows the store
            does not have.
    """

    path: str
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    manifest: str | None = None
    manifest_columns: dict[str, str] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    disputed: str = "error"

    def __post_init__(self) -> None:
        check_disputed(self.disputed)

    def records(self) -> Records:
        """The checked records; read once."""
        return self._loaded[0]

    def embeddings(self) -> StoredRows:
        """(N, D) float16 or float32, row i belonging to record i; read where it is indexed."""
        rows = self._loaded[1]
        matrix = self._store.matrix()
        whole = len(rows) == len(matrix) and bool((rows == np.arange(len(matrix))).all())
        return matrix if whole else matrix.take(rows)

    def encoder_description(self) -> dict[str, Any]:
        """The spec in the store's `encoder.json`; of a store without, only that it is clip-retrieval's."""
        return self._store.spec.to_dict()

    def content_key(self) -> str:
        """Hex sha256 over the store's files: paths, sizes and modification times."""
        digest = hashlib.sha256(self._store.spec.fingerprint.encode())
        for shard in self._store.shards:
            stat = shard.matrix.stat()
            digest.update(f"{path_text(shard.matrix.absolute())}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    @cached_property
    def _store(self) -> EmbeddingStore:
        return EmbeddingStore.open(self.path)

    @cached_property
    def _loaded(self) -> tuple[Records, np.ndarray]:
        origin = f"the store {self.path}"
        table = self._store.metadata()
        names = set(table.column_names)
        if "image" in names and "image_path" in names:
            table = table.drop_columns(["image_path"])
        columns = dict(self.columns)
        if "image_path" in table.column_names and "image_path" not in columns.values():
            columns.setdefault("image", "image_path") if "image" not in names else None
        table = table.append_column(_ROW, pa.array(np.arange(len(table))))
        if self.manifest is None:
            whole = self._store.whole_pairs(table)
            table = as_record_columns(table, columns=columns, labels=self.labels, where=self.where, origin=origin)
            if whole is not None:
                table = table.filter(pa.array(np.isin(table[_ROW].to_numpy(), whole)))
            table = _with_id(table, origin)
        else:
            own = {ours: theirs for ours, theirs in columns.items() if ours != "label"}
            unlabelled = table.drop_columns([name for name in ("label",) if name in names])  # the manifest's count
            stored = _with_id(as_record_columns(unlabelled, columns=own, labels={}, where={}, origin=origin), origin)
            joined = self._joined(stored, self._set_aside(table, columns), origin)
            table = self._settled(
                joined, stored, self._own_labels(table, columns.get("label", "label"), origin), origin
            )
        if "label" not in table.column_names:
            raise DataError(
                f"{origin} has no labels (metadata: {listed(sorted(names), 20)}): name its label column with "
                "columns={label: …}, or give a `manifest` with id and label."
            )
        records = records_of_split(Records.from_table(table, origin=origin), self.split, origin)
        rows = records.column(_ROW).astype(np.int64)
        return records.without([_ROW]), rows

    def _set_aside(self, table: pa.Table, columns: dict[str, str]) -> dict[str, SetAside]:
        """Return what could not be embedded, by what stands for the id here."""
        named = columns.get("id", "id")
        lost = self._store.set_aside(table)
        if named == "id":
            return {each.id: each for each in lost}
        return {each.uri: each for each in lost if each.uri is not None} if named in ("image", "image_path") else {}

    def _joined(self, stored: pa.Table, set_aside: dict[str, SetAside], origin: str) -> pa.Table:
        """The manifest's rows with the row numbers (and, where it lacks them, images) of the store's."""
        assert self.manifest is not None
        place = f"the manifest {self.manifest}"
        text = {self.manifest_columns.get(name, name) for name in SCHEMA.names}
        theirs = read_table(self.manifest, text)
        table = as_record_columns(
            theirs,
            columns=self.manifest_columns,
            labels=self.labels,
            where=self.where,
            origin=place,
        )
        if "id" not in table.column_names:
            raise DataError(
                f"{place} has no column 'id' to match with the store's.{near('id', theirs.column_names)} Name it with "
                f"manifest_columns={{id: …}}. It has: {listed(theirs.column_names, 30)}."
            )
        row_of = {str(text_of(v)): i for i, v in enumerate(stored["id"].to_pylist())}
        ids = [str(text_of(v)) for v in table["id"].to_pylist()]
        if absent := [v for v in ids if v not in row_of and v not in set_aside]:
            raise DataError(
                f"{len(absent)} of {len(ids)} records of {place} are not in {origin}: {listed(absent, 3)}. Ids there "
                f"look like: {listed(row_of, 3)}. columns={{id: …}} names another column of the metadata."
            )
        if lost := [set_aside[v] for v in ids if v not in row_of]:
            there = np.array([v in row_of for v in ids], dtype=bool)
            kept = there & ~_of_broken_pairs(table, there)
            if not kept.any():
                raise DataError(f"None of the {len(ids)} records of {place} is left: {described(lost[0])}, and so on.")
            warn(lost, len(ids), place, self._store.path, int((there & ~kept).sum()))
            table, ids = table.filter(pa.array(kept)), [ids[i] for i in np.flatnonzero(kept)]
        positions = np.array([row_of[v] for v in ids], dtype=np.int64)
        table = table.append_column(_ROW, stored[_ROW].take(pa.array(positions)))
        if "image" not in table.column_names and "image" in stored.column_names:
            table = table.append_column("image", stored["image"].take(pa.array(positions)))
        return table

    def _own_labels(self, table: pa.Table, name: str, origin: str) -> pa.Array | None:
        """(N,) what the store says of its rows itself; None where it has no labels, or other ones than we know."""
        for labels in ({}, self.labels):
            try:
                return read_labels(table[name], labels, origin, name).labels if name in table.column_names else None
            except DataError:
                continue  # it may be of another kind than the manifest's, which is what counts
        return None

    def _settled(self, joined: pa.Table, stored: pa.Table, labels: pa.Array | None, origin: str) -> pa.Table:
        """`joined` where it agrees with what the store says of the same rows, or as `disputed` says it shall be."""
        rows = joined[_ROW].combine_chunks()
        ids = [str(text_of(name)) for name in joined["id"].to_pylist()]
        known = [name for name in joined.column_names if name in stored.column_names and name not in _NOT_COMPARED]
        before = stored.select(known).take(rows)
        if others := differences(ids, before, joined.select(known)):
            text = "; ".join(each.text(("", "there ")) for each in others)
            log.info("%s says otherwise than %s, and counts: %s", f"the manifest {self.manifest}", origin, text)
        if labels is None or "label" not in joined.column_names:
            return joined
        own = pa.table({"label": labels.take(rows)})
        found = differences(ids, own, joined.select(["label"]))
        if not found or self.disputed == "last":
            return joined
        if self.disputed == "error":
            raise LabelsUnclear(
                f"{len(found[0].rows):,} of {len(ids):,} records of the manifest {self.manifest} have another label in "
                f"{origin}: {examples(found[0], 'there', 'in the manifest')}.",
                [
                    (
                        "Mend those that are wrong, or say what counts: the store's (first), the manifest's (last), or "
                        "neither (drop)",
                        [("disputed", value) for value in DISPUTED[1:]],
                    )
                ],
            )
        agree = np.ones(len(ids), dtype=bool)
        agree[found[0].rows] = False
        if self.disputed == "drop":
            return joined.filter(pa.array(agree & ~_of_broken_pairs(joined, agree)))
        cells = joined[CELLS].cast(pa.string())
        told = pc.if_else(pa.array(agree), cells, own["label"].cast(pa.string()))
        return with_column(with_column(joined, "label", own["label"]), CELLS, told)


def _of_broken_pairs(table: pa.Table, there: np.ndarray) -> np.ndarray:
    """Which rows are of a pair that a row which is not `there` is of, too."""
    pairs = table["pair_id"].to_pylist() if "pair_id" in table.column_names else [None] * len(table)
    broken = {pair for pair, found in zip(pairs, there, strict=True) if not found} - {None, ""}
    return np.array([pair in broken for pair in pairs], dtype=bool)


def _with_id(table: pa.Table, origin: str) -> pa.Table:
    if "id" in table.column_names:
        return table
    if "image" not in table.column_names:
        raise DataError(
            f"{origin} has no column 'id' or 'image_path' (metadata: {listed(table.column_names, 20)}): name one with "
            "columns={id: …}."
        )
    return table.append_column("id", table["image"])
