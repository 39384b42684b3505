"""The pool: what mixing needs to know of a set of records, in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from guardtrain.errors import MixtureError
from guardtrain.records import SAFE, UNSAFE, Records

_SHOWN = 5  # offending ids named in an error before "and N more"


@dataclass(frozen=True, eq=False)
class Pool:
    """A set of labelled images to draw from.

    Everything drawn from a pool depends on its *set* of records and never on the order of its rows: draws are made
    in the order of the sorted ids (`canonical`) and given back as row indices. Two pools with the same records in
    another order, say from a cold and a warm cache, therefore give the same images.

    Args:
        ids: (N,) strings, unique.
        labels: (N,) int8, 0 safe, 1 unsafe.
        strata: (N,) strings, what draws are stratified by within a label (the category); None becomes ''.
        groups: (N,) strings, never split; None for "every image is its own group".
        pair_ids: (N,) strings or None, which records are two halves of a pair; None where nothing is paired.
        name: what errors call the pool.

    Raises:
        MixtureError: an empty pool, columns of different lengths, a repeated id, a label that is neither 0 nor 1.

    >>> pool = Pool(ids=["b", "a"], labels=[1, 0], pair_ids=["p", "p"], groups=["p", "p"])
    >>> pool.pairs
    (array([1]), array([0]))
    """

    ids: np.ndarray
    labels: np.ndarray
    strata: np.ndarray = None  # type: ignore[assignment]
    groups: np.ndarray = None  # type: ignore[assignment]
    pair_ids: np.ndarray = None  # type: ignore[assignment]
    name: str = "real"

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns: dict[str, np.ndarray] = {
            "ids": _strings(self.ids),
            "labels": np.asarray(self.labels),
            "strata": _strings([""] * n if self.strata is None else self.strata),
            "groups": _strings(self.ids if self.groups is None else self.groups),
            "pair_ids": np.array([None] * n if self.pair_ids is None else list(self.pair_ids), dtype=object),
        }
        if n == 0:
            raise MixtureError(f"The {self.name} pool is empty; it needs safe and unsafe records.")
        for column, values in columns.items():
            if values.shape != (n,):
                raise MixtureError(
                    f"Column '{column}' of the {self.name} pool has shape {values.shape}; there are {n} ids, "
                    f"so ({n},) is needed."
                )
        if not np.isin(columns["labels"], (SAFE, UNSAFE)).all():
            raise MixtureError(
                f"The labels of the {self.name} pool must be 0 (safe) or 1 (unsafe); "
                f"they are {_named(np.unique(columns['labels']).tolist())}."
            )
        values, count = np.unique(columns["ids"], return_counts=True)
        if (count > 1).any():
            raise MixtureError(
                f"The ids of the {self.name} pool must be unique; repeated: {_named(values[count > 1])}."
            )
        columns["labels"] = columns["labels"].astype(np.int8)
        for column, values in columns.items():
            object.__setattr__(self, column, values)

    @classmethod
    def from_records(cls, records: Records, name: str = "real") -> Pool:
        """The pool of all `records`, stratified by category; `name` is what errors call it.

        >>> Pool.from_records(Records.from_columns(id=["a", "b"], label=[0, 1]), name="pairs").n
        2
        """
        return cls(records.ids, records.labels, records.categories, records.groups, records.pair_ids, name)

    def take(self, rows: np.ndarray | Sequence[int]) -> Pool:
        """The pool of `rows`: indices, or a (N,) bool mask such as `~hold_out(pool, ...)`."""
        rows = np.asarray(rows)
        rows = rows if rows.dtype == bool else rows.astype(np.int64)
        return Pool(
            self.ids[rows], self.labels[rows], self.strata[rows], self.groups[rows], self.pair_ids[rows], self.name
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.ids)

    @property
    def n_pairs(self) -> int:
        """Number of pairs, P."""
        return len(self.pairs[0])

    @cached_property
    def canonical(self) -> np.ndarray:
        """(N,) int64, the rows in the order of their ids."""
        return np.argsort(self.ids, kind="stable").astype(np.int64)

    @cached_property
    def class_counts(self) -> tuple[int, int]:
        """Number of safe and of unsafe images."""
        unsafe = int(self.labels.sum())
        return self.n - unsafe, unsafe

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the safe and of the unsafe half of every pair, each (P,) int64, in the order of the pair ids.

        Records without a pair id are left out here.

        Raises:
            MixtureError: a pair id that does not name exactly one safe and one unsafe record of the pool.
        """
        paired = self.canonical[np.array([self.pair_ids[row] is not None for row in self.canonical], dtype=bool)]
        if not len(paired):
            return paired, paired.copy()
        names, inverse = np.unique(_strings(self.pair_ids[paired]), return_inverse=True)
        unsafe = np.bincount(inverse, weights=self.labels[paired], minlength=len(names))
        size = np.bincount(inverse, minlength=len(names))
        broken = (size != 2) | (unsafe != 1)
        if broken.any():
            first = int(np.flatnonzero(broken)[0])
            raise MixtureError(
                f"{int(broken.sum())} of {len(names)} pairs of the {self.name} pool are broken: "
                f"{_named(names[broken])}. A pair needs one safe and one unsafe record; the pool has "
                f"{int(size[first] - unsafe[first])} safe and {int(unsafe[first])} unsafe of pair '{names[first]}'. "
                "Bring the missing halves into the pool (was it split by image instead of by group?) or leave these "
                "records out."
            )
        by_label = paired[np.lexsort((self.labels[paired], inverse))]
        return by_label[0::2], by_label[1::2]

    def require_both_classes(self) -> None:
        """Raises MixtureError unless the pool has safe and unsafe images."""
        safe, unsafe = self.class_counts
        if not (safe and unsafe):
            raise MixtureError(
                f"The {self.name} pool has {safe} safe and {unsafe} unsafe images; at least 1 of each class is needed."
            )

    def require_all_paired(self) -> None:
        """Raises MixtureError unless every record of the pool is half of a whole pair."""
        single = self.n - 2 * self.n_pairs
        if single:
            alone = [str(i) for i, pair in zip(self.ids, self.pair_ids, strict=True) if pair is None]
            raise MixtureError(
                f"{single} of {self.n} records of the {self.name} pool have no pair_id: {_named(alone)}. "
                "A pool of pairs holds pairs only; leave these records out or move them to the real pool."
            )


def _strings(values: Any) -> np.ndarray:
    """(N,) array of strings, None as ''."""
    return np.array(["" if v is None else str(v) for v in values], dtype=np.str_)


def _named(values: Sequence[Any] | np.ndarray) -> str:
    shown = ", ".join(str(v) for v in values[:_SHOWN])
    return shown + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")
