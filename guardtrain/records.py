"""The record table: one row an image and what is known of it, checked once on entry."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guardtrain.errors import DataError
from guardtrain.file_names import path_text

SAFE, UNSAFE = 0, 1
SPLITS = ("train", "val", "test")
CELLS = "__cells__"  # a column of tables on their way to `Records.from_table`: what stood in the user's label column

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.string()),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("source", pa.string()),
        pa.field("pair_id", pa.string()),
        pa.field("edited", pa.bool_(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
    ]
)

_SHOWN = 5  # offending ids named in an error before "and N more"


def _named(values: Sequence[Any] | np.ndarray) -> str:
    """The first few of `values` for an error message, and how many more there are."""
    shown = ", ".join(str(v) for v in values[:_SHOWN])
    return shown + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


@dataclass(frozen=True)
class Taken:
    """The reading of somebody's labels: which were taken as unsafe and which as safe.

    Args:
        unsafe, safe: what stood there, with the number of records, the most first.

    >>> str(Taken((("'nsfw'", 812),), (("'sfw'", 1190), ("'ok'", 3))))
    "unsafe: 'nsfw' (812), safe: 'sfw' (1,190), 'ok' (3)"
    """

    unsafe: tuple[tuple[str, int], ...]
    safe: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"unsafe: {_counted(self.unsafe)}, safe: {_counted(self.safe)}"


def _counted(names: Sequence[tuple[str, int]]) -> str:
    shown = [f"{name} ({count:,})" for name, count in names[:_SHOWN]]
    if rest := names[_SHOWN:]:
        shown.append(f"{len(rest)} more ({sum(count for _, count in rest):,})")
    return ", ".join(shown) or "none"


@dataclass(frozen=True)
class Records:
    """A checked record table.

    Args:
        table: the columns of `SCHEMA` in its order and types, then any further columns of the user's.
        root: the folder relative `image` paths start from; None where paths are absolute, URLs or absent.
        cells: (N,) strings, what stood in the user's label column; None where the labels are our own.

    Build one with `Records.from_table`, which fills missing optional columns and checks everything;
    the plain constructor trusts its arguments.

    >>> records = Records.from_columns(id=["a", "b"], label=[0, 1], pair_id=["p", "p"])
    >>> records.groups.tolist()
    ['p', 'p']
    """

    table: pa.Table
    root: Path | None = None
    cells: pa.ChunkedArray | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_columns(cls, *, root: Path | None = None, **columns: Any) -> Records:
        """Checked records from equally long columns; see `from_table`."""
        return cls.from_table(pa.table(columns), root=root)

    @classmethod
    def from_table(cls, table: pa.Table, *, root: Path | None = None, origin: str = "the record table") -> Records:
        """Check `table` and bring it to `SCHEMA`; optional columns that are missing are filled with nulls.

        Args:
            table: at least `id` and `label` (1 is unsafe, 0 is safe); its column `CELLS`, where it has one, becomes
                `cells`.
            root: what relative image paths are relative to.
            origin: where the table came from, for error messages.

        Raises:
            DataError: a missing column, a wrong type or value, a repeated id, a `pair_id` that does not name
                exactly one safe and one unsafe record, or a group that lies in two splits.
        """
        cells = table[CELLS] if CELLS in table.column_names else None
        table = table.drop_columns([CELLS]) if cells is not None else table
        columns = [_conform(table, field, origin) for field in SCHEMA]
        names = list(SCHEMA.names)
        for name in table.column_names:
            if name not in names:
                names.append(name)
                columns.append(table[name])
        records = cls(pa.table(columns, names=names), root, cells)
        _check(records, origin)
        return records

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> np.ndarray:
        """A column as a numpy array; nulls in string columns become None."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) object array of strings, unique."""
        return self.column("id")

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int8, 1 is unsafe."""
        return self.column("label").astype(np.int8)

    @cached_property
    def categories(self) -> np.ndarray:
        """(N,) object array of strings or None."""
        return self.column("category")

    @cached_property
    def sources(self) -> np.ndarray:
        """(N,) object array of strings or None."""
        return self.column("source")

    @cached_property
    def pair_ids(self) -> np.ndarray:
        """(N,) object array of strings or None."""
        return self.column("pair_id")

    @cached_property
    def edited(self) -> np.ndarray:
        """(N,) bool, True where the image went through an image editor."""
        return self.column("edited").astype(bool)

    @cached_property
    def splits(self) -> np.ndarray:
        """(N,) object array of train, val, test or None."""
        return self.column("split")

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) object array of strings: `group`, else `pair_id`, else `id`. Never split."""
        return np.asarray(_groups(self.table).to_numpy(zero_copy_only=False))

    @cached_property
    def taken(self) -> Taken | None:
        """Return which of the user's labels were taken as unsafe and as safe; None where the labels are our own."""
        if self.cells is None:
            return None
        counts: dict[tuple[str, int], int] = {}
        pairs = pa.table({"cell": pc.cast(self.cells, pa.string()), "label": self.table["label"]})
        for row in pairs.group_by(["cell", "label"]).aggregate([([], "count_all")]).to_pylist():
            counts[str(row["cell"]), row["label"]] = row["count_all"]
        ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        unsafe, safe = (
            tuple((cell, n) for (cell, label), n in ordered if label == wanted) for wanted in (UNSAFE, SAFE)
        )
        return Taken(unsafe, safe)

    def image_uri(self, index: int) -> str | None:
        """Path (under `root` where it is relative) or URL of the image of row `index`; None where there is none."""
        image: str | None = self.table["image"][index].as_py()
        return self._located(image)

    def image_uris(self) -> list[str | None]:
        """`image_uri` of every row, read at once."""
        return [self._located(image) for image in self.column("image")]

    def _located(self, image: str | None) -> str | None:
        if image is None or self.root is None or "://" in image:
            return image
        return path_text(self.root / image)  # leaves absolute paths as they are

    def take(self, indices: np.ndarray | Sequence[int]) -> Records:
        """The rows at `indices`, in that order. Taking one half of a pair is allowed: the pair stays named."""
        rows = pa.array(np.asarray(indices, dtype=np.int64))
        return Records(self.table.take(rows), self.root, None if self.cells is None else self.cells.take(rows))

    def without(self, names: Sequence[str]) -> Records:
        """A copy without these columns, which are none of `SCHEMA`."""
        return replace(self, table=self.table.drop_columns(list(names)))

    def with_column(self, name: str, values: Any) -> Records:
        """A copy with column `name` of `SCHEMA` replaced (checked again) or a further column set."""
        array = pa.array(values)
        index = self.table.schema.get_field_index(name)
        table = self.table.append_column(name, array) if index < 0 else self.table.set_column(index, name, array)
        if self.cells is not None and name != "label":
            table = table.append_column(CELLS, self.cells)
        return Records.from_table(table, root=self.root)

    def digest(self) -> str:
        """sha256 (hex) over the ids in order: what a store's rows are matched by."""
        h = hashlib.sha256()
        for record_id in self.ids:
            h.update(str(record_id).encode() + b"\0")
        return h.hexdigest()


def _groups(table: pa.Table) -> pa.ChunkedArray:
    return pc.coalesce(table["group"], table["pair_id"], table["id"])


def _conform(table: pa.Table, field: pa.Field, origin: str) -> pa.ChunkedArray:
    """Column `field` of `table` in its exact type; nulls where an optional column is absent."""
    if field.name not in table.column_names:
        if field.name in ("id", "label"):
            raise DataError(
                f"{origin} has no column '{field.name}' (it has: {', '.join(table.column_names) or 'none'}). "
                "A record table needs at least id and label (0 safe, 1 unsafe)."
            )
        default = pa.scalar(False) if field.name == "edited" else pa.scalar(None, field.type)
        return pa.chunked_array([pa.repeat(default, table.num_rows)])
    column = table[field.name]
    try:
        column = pc.cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"Column '{field.name}' of {origin} holds {column.type}, and not all of it can be read as {field.type}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    if field.name == "edited":
        column = pc.fill_null(column, False)
    elif field.type == pa.string():
        # Tools without nulls write empty text; as a value it would make one pair of all unpaired records.
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column], field.type)


def _check(records: Records, origin: str) -> None:
    table = records.table
    for name in ("id", "label"):
        if table[name].null_count:
            rows = np.flatnonzero(np.asarray(table[name].is_null())).tolist()
            raise DataError(f"Column '{name}' of {origin} is empty in rows {_named(rows)}; every record needs one.")
    labels = records.labels
    if (bad := ~np.isin(labels, (SAFE, UNSAFE))).any():
        raise DataError(
            f"Column 'label' of {origin} must be 0 (safe) or 1 (unsafe); it is {int(labels[bad][0])} "
            f"in records {_named(records.ids[bad])}."
        )
    ids, counts = np.unique(records.ids.astype(str), return_counts=True)
    if (counts > 1).any():
        raise DataError(f"Column 'id' of {origin} must be unique; repeated: {_named(ids[counts > 1])}.")
    splits = records.splits
    odd = np.array([s is not None and s not in SPLITS for s in splits], dtype=bool)
    if odd.any():
        raise DataError(
            f"Column 'split' of {origin} must be one of {', '.join(SPLITS)} or empty; it is "
            f"'{splits[odd][0]}' in records {_named(records.ids[odd])}."
        )
    _check_pairs(records, origin)
    _check_groups(records, origin)


def _check_pairs(records: Records, origin: str) -> None:
    paired = np.array([p is not None for p in records.pair_ids], dtype=bool)
    if not paired.any():
        return
    names, inverse = np.unique(records.pair_ids[paired].astype(str), return_inverse=True)
    unsafe = np.bincount(inverse, weights=records.labels[paired], minlength=len(names))
    size = np.bincount(inverse, minlength=len(names))
    broken = (size != 2) | (unsafe != 1)
    if broken.any():
        first = names[broken][0]
        members = records.ids[records.pair_ids == first]
        raise DataError(
            f"A pair_id names exactly one safe and one unsafe record; in {origin} these do not: "
            f"{_named(names[broken])} (pair '{first}' has {int(size[broken][0])} records, "
            f"{int(unsafe[broken][0])} unsafe: {_named(members)}). Mend the pair or empty its pair_id."
        )


def _check_groups(records: Records, origin: str) -> None:
    """A pair lies in one group, and a group in one split."""
    for inner, outer, why in (
        (records.pair_ids, records.groups, "The two records of a pair belong to one group"),
        (records.groups, records.splits, "A group is never split over train, val and test"),
    ):
        rows = np.array([v is not None for v in inner], dtype=bool)
        if not rows.any():
            continue
        keys = inner[rows].astype(str)
        values = np.array(["" if v is None else str(v) for v in outer[rows]])
        key_of_combination = np.unique(np.stack([keys, values]), axis=1)[0]
        names, counts = np.unique(key_of_combination, return_counts=True)
        if (counts > 1).any():
            raise DataError(f"{why}; in {origin} these are in several: {_named(names[counts > 1])}.")
