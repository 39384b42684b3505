"""From the rows of somebody's data set to records: renamed, derived, paired, filtered, as a config says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from guardtrain.errors import ConfigError, DataError
from guardtrain.records import CELLS, SAFE, UNSAFE, Records
from guardtrain.sources.arrays import EDITED_HALVES
from guardtrain.sources.choosing import rows_matching
from guardtrain.sources.derived import Derived, check_names, named_column, with_derived
from guardtrain.sources.guessing import without_labels
from guardtrain.sources.record_columns import (
    as_record_columns,
    records_of_split,
    with_column,
    with_constants,
    with_source,
)
from guardtrain.sources.rows import ImageRows
from guardtrain.words import listed, near

UNPAIRED = ("error", "drop", "keep")
ROW, IMAGE = "__row__", "__image__"  # the row and the image column that each record's image is in


@dataclass
class PairColumns:
    """Two images in one row: a safe and an unsafe one, which become two records with one `pair_id`.

    Args:
        safe, unsafe: the columns of the two images.
        swapped: column -> value of the rows in which the two are the other way round, such as `{label_0: 0}`; as in
            `where`, some row must have it.
        names_of: where `safe` and `unsafe` hold names of files, the image column those files are in, in this row or
            another.
        edited: which halves went through an editor: safe, unsafe, none or both.
    """

    safe: str = ""
    unsafe: str = ""
    swapped: dict[str, Any] = field(default_factory=dict)
    names_of: str | None = None
    edited: str = "none"


@dataclass
class RowMapping:
    """How rows become records; the settings that `ParquetImagesSource`, `WebDatasetSource` and others share.

    Args:
        columns: our column -> the data set's; `image` names the image column.
        labels: cell of the label column -> 0 (safe) or 1 (unsafe); default as in `ManifestSource`.
        where: column -> value or list of values; only rows that match are kept. A value that no row has is an error,
            unless it ends in a question mark.
        derive: our column -> how it is made from another.
        constants: our column -> one value for all records, such as `{label: 0}`.
        pairs: the two image columns, where a row holds a pair.
        unpaired: what becomes of a record whose `pair_id` does not name one safe and one unsafe record: an error, it
            is dropped, or it is kept without the `pair_id`.
        split: keep only this split (train, val or test).
        source: value for records whose `source` is empty.
    """

    columns: Mapping[str, str]
    labels: Mapping[str, int]
    where: Mapping[str, Any]
    derive: Mapping[str, Derived]
    constants: Mapping[str, Any]
    pairs: PairColumns | None
    unpaired: str
    split: str | None
    source: str | None

    def __post_init__(self) -> None:
        if self.unpaired not in UNPAIRED:
            raise ConfigError(f"unpaired is '{self.unpaired}'; allowed: {', '.join(UNPAIRED)}.")
        check_names("derive", self.derive)
        check_names("constants", self.constants)

    def records(self, rows: ImageRows, image: str, origin: str) -> tuple[Records, np.ndarray, np.ndarray]:
        """The records of `rows`, and of each the row and the name of the column that its image is in.

        Args:
            image: the image column, where `pairs` names none.

        Raises:
            DataError: see `as_record_columns`, `Records.from_table` and `PairColumns`.
        """
        columns = {ours: theirs for ours, theirs in self.columns.items() if ours != "image"}
        table = rows.table.append_column(ROW, pa.array(np.arange(rows.table.num_rows)))
        table = with_derived(table, self.derive, origin, (ROW, IMAGE))
        columns = {ours: theirs for ours, theirs in columns.items() if ours not in self.derive}
        if self.pairs is not None:
            table = _halves(table, self.pairs, rows, columns, self.unpaired, origin)
        else:
            table = table.append_column(IMAGE, pa.array([image] * table.num_rows, pa.string()))
        table = as_record_columns(table, columns=columns, labels=self.labels, where=self.where, origin=origin)
        table = with_constants(table, self.constants, origin)
        if "label" not in table.column_names:
            raise without_labels(rows.table, self.columns, origin, rows.hint)
        if "id" not in table.column_names:
            ids = np.asarray(rows.ids, dtype=object)[table[ROW].to_numpy()]
            table = table.append_column("id", pa.array(ids, pa.string()))
        table = with_source(table, self.source)
        table = _with_whole_pairs(table, self.unpaired, origin)
        places = zip(table[ROW].to_pylist(), table[IMAGE].to_pylist(), strict=True)
        table = with_column(table, "image", pa.array([rows.uri(row, column) for row, column in places], pa.string()))
        dropped = [name for c in rows.image_columns if (name := f"{c}.path") in table.column_names]
        records = Records.from_table(table.drop_columns(dropped), origin=origin)
        records = records_of_split(records, self.split, origin)
        at, images = records.column(ROW).astype(np.int64), records.column(IMAGE)
        return records.without([ROW, IMAGE]), at, images


def _halves(
    table: pa.Table, pairs: PairColumns, rows: ImageRows, columns: dict[str, str], unpaired: str, origin: str
) -> pa.Table:
    """Two lines for each row of a pair: safe 0, unsafe 0, safe 1, …"""
    if pairs.edited not in EDITED_HALVES:
        raise ConfigError(f"pairs.edited is '{pairs.edited}'; allowed: {', '.join(EDITED_HALVES)}.")
    if "label" in columns:
        raise ConfigError(f"columns.label is '{columns['label']}', but with `pairs` the two columns are the labels.")
    swapped = np.zeros(table.num_rows, dtype=bool)
    if pairs.swapped:
        swapped = rows_matching(table, pairs.swapped, origin, "pairs.swapped")
    halves = np.where(swapped[:, None], [[pairs.unsafe, pairs.safe]], [[pairs.safe, pairs.unsafe]]).astype(object)
    at = np.stack([np.arange(table.num_rows)] * 2, axis=1)
    kept, columns_taken = np.arange(table.num_rows), halves
    if pairs.names_of is not None:
        kept, at = _found(table, halves, pairs.names_of, unpaired, origin)
        columns_taken, halves = halves[kept], np.full(at.shape, pairs.names_of, dtype=object)
    else:
        for name in (pairs.safe, pairs.unsafe):
            if name not in rows.image_columns:
                raise DataError(
                    f"{origin} has no image column '{name}' (wanted for pairs).{near(name, rows.image_columns)} Its "
                    f"image columns: {listed(rows.image_columns)}."
                )
    names = [rows.ids[i] for i in kept]
    if "pair_id" in table.column_names or "pair_id" in columns:
        given = named_column(table, columns.pop("pair_id", "pair_id"), "pair_id", origin)
        names = [str(name) for name in given.take(pa.array(kept)).to_pylist()]
    n = len(kept)
    table = table.take(pa.array(np.repeat(kept, 2)))
    made: dict[str, Any] = {
        ROW: at.ravel(),
        IMAGE: pa.array(halves.ravel(), pa.string()),
        "id": [f"{name}/{half}" for name in names for half in ("safe", "unsafe")],
        "label": np.tile(np.array([SAFE, UNSAFE], dtype=np.int8), n),
        CELLS: pa.array([repr(name) for name in columns_taken.ravel()], pa.string()).dictionary_encode(),
        "pair_id": np.repeat(np.array(names, dtype=object), 2),
        "edited": np.tile(np.array(EDITED_HALVES[pairs.edited]), n),
    }
    for name, values in made.items():
        table = with_column(table, name, pa.array(values))
        columns.pop(name, None)
    return table


def _found(
    table: pa.Table, halves: np.ndarray, image: str, unpaired: str, origin: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each half for pairs of file names; each pair once, in the order of its first row."""
    paths = named_column(table, f"{image}.path", "pairs.names_of", origin).to_pylist()
    row_of: dict[str, int] = {}
    for row, path in enumerate(paths):
        if path is None:
            continue
        if path in row_of:
            raise DataError(f"{origin}: two rows hold a file named '{path}', so pairs.names_of cannot tell them apart.")
        row_of[path] = row
    cells = {name: named_column(table, name, "pairs", origin).to_pylist() for name in set(halves.ravel())}
    first: dict[tuple[str, str], int] = {}
    for row in range(len(halves)):
        safe, unsafe = (str(cells[column][row]) for column in halves[row])
        first.setdefault((safe, unsafe), row)
    # names with a folder where the files have none, as the hub's viewer and `push_to_hub` leave them
    places = {pair: [row_of.get(name, row_of.get(name.rsplit("/", 1)[-1])) for name in pair] for pair in first}
    whole = [pair for pair in first if None not in places[pair]]
    if lost := len(first) - len(whole):
        message = (
            f"{lost} of {len(first)} pairs of {origin} name files that no row's '{image}' holds, such as "
            f"{listed([p for p in first if None in places[p]], 2)}; files there are named like {listed(row_of, 3)}."
        )
        if unpaired != "drop" or not whole:
            raise DataError(f"{message} unpaired=drop leaves such pairs out.")
        print(f"{message} They are left out.", file=sys.stderr, flush=True)
    return (
        np.array([first[pair] for pair in whole], dtype=np.int64),
        np.array([places[pair] for pair in whole], dtype=np.int64).reshape(-1, 2),
    )


def _with_whole_pairs(table: pa.Table, unpaired: str, origin: str) -> pa.Table:
    """`table` with broken pairs dropped or unpaired, as `unpaired` says; an error is left to the records' check."""
    if unpaired == "error" or "pair_id" not in table.column_names:
        return table
    names = np.array(["" if v is None else str(v) for v in table["pair_id"].to_pylist()], dtype=object)
    _, inverse = np.unique(names.astype(str), return_inverse=True)
    labels = table["label"].to_numpy()
    size, unsafe = np.bincount(inverse), np.bincount(inverse, weights=labels)
    broken = ((size != 2) | (unsafe != 1))[inverse] & (names != "")
    if not broken.any():
        return table
    what = "left out" if unpaired == "drop" else "kept as single images"
    print(
        f"{origin}: {int(broken.sum())} of {len(broken)} records are not one safe and one unsafe half of a pair; "
        f"{what} (unpaired={unpaired}).",
        file=sys.stderr,
        flush=True,
    )
    if unpaired == "keep":
        return with_column(
            table,
            "pair_id",
            pa.array([None if b or not n else n for b, n in zip(broken, names, strict=True)], pa.string()),
        )
    if broken.all():
        raise DataError(f"{origin} has no whole pair: no pair_id names exactly one safe and one unsafe record.")
    return table.filter(pa.array(~broken))
