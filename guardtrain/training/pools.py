"""What a training draws from: the real pool, the pair pool and the test sets, as embeddings of one encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from guardtrain.embeddings import Embeddings
from guardtrain.embeddings.norms import wrong_rows
from guardtrain.embeddings.sketches import sketched
from guardtrain.encoders.spec import EncoderSpec, external_spec, require_same
from guardtrain.errors import ConfigError, DataError, did_you_mean
from guardtrain.mixtures import Mixture, Pool, Supply, hold_out, shuffled_partners
from guardtrain.records import Records
from guardtrain.training.copies import without_copies
from guardtrain.training.swapping import with_swapped_pairs

_BLOCK_ROWS = 8192  # rows read at once of what lies in a store
# What of a record decides which mixtures it is drawn for, how it is judged, and in which slices.
_DECIDING = ("id", "label", "category", "source", "pair_id", "group")


@dataclass(frozen=True)
class HoldOut:
    """A test set taken out of a pool: by number of groups, by share, the records whose split says test, or categories.

    Records of the categories are in no pool, whichever they are held out of.
    """

    pool: str
    groups: int | None = None
    fraction: float | None = None
    split: str | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnRows:
    """The data that some runs train on, gathered once.

    Args:
        rows: `(n,)` int64, ascending: rows of `Pools.matrix`.
        matrix: `(n, D)` float32.
        labels: `(n,)` int64.
    """

    rows: np.ndarray
    matrix: np.ndarray
    labels: np.ndarray

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where rows of `Pools.matrix` (of any shape) lie in `matrix`; they must be among those drawn."""
        return np.searchsorted(self.rows, rows)


@dataclass(frozen=True)
class Pools:
    """Pools and test sets of one data set; no group lies both in a pool and in a test set.

    Args:
        name: the data's name.
        real: the real pool.
        pairs: the pair pool, or None.
        tests: test sets by name.
        validation: by pool's name, its records whose split says val, but for those that share a group with a test set.
            Nothing is drawn from them.
        notes: what the user should know of them, a line each.
    """

    name: str
    real: Embeddings
    pairs: Embeddings | None
    tests: Mapping[str, Embeddings]
    validation: Mapping[str, Embeddings] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> EncoderSpec:
        """The encoder all of it comes from."""
        return self.real.spec

    @property
    def supply(self) -> Supply:
        """How many images there are to draw from."""
        of_pairs = None if self.pairs is None else self.pairs.records.pair_ids
        pairs = None if of_pairs is None else len({one for one in of_pairs if one is not None})
        return Supply(len(self.real), int(self.real.records.labels.sum()), pairs)

    @cached_property
    def matrix(self) -> np.ndarray:
        """`(N_real + N_pairs, D)` float32: the real pool's rows, then the pair pool's."""
        return self._gathered(np.arange(len(self.labels)))

    @cached_property
    def labels(self) -> np.ndarray:
        """`(N_real + N_pairs,)` int64, in the order of `matrix`."""
        parts = [self.real.records.labels] + ([] if self.pairs is None else [self.pairs.records.labels])
        return np.concatenate(parts).astype(np.int64)

    def drawn(self, mixtures: Iterable[Mixture]) -> DrawnRows:
        """The rows of `matrix` that any of `mixtures` trains on, and no others: all that a curve needs in memory."""
        used = np.zeros(len(self.labels), dtype=bool)
        for mixture in mixtures:
            used[self.rows(mixture)] = True
        rows = np.flatnonzero(used)
        return DrawnRows(rows, self._gathered(rows), self.labels[rows])

    def _gathered(self, rows: np.ndarray) -> np.ndarray:
        """`(n, D)` float32: ascending `rows` of `matrix`, a block at a time where they lie in a store."""
        out = np.empty((len(rows), self.real.dim), dtype=np.float32)
        first = np.searchsorted(rows, len(self.real))
        for part, own, into in (
            (self.real, rows[:first], out[:first]),
            (self.pairs, rows[first:] - len(self.real), out[first:]),
        ):
            for start in range(0, len(own), _BLOCK_ROWS):
                assert part is not None
                into[start : start + _BLOCK_ROWS] = part.matrix[own[start : start + _BLOCK_ROWS]]
        return out

    def rows(self, mixture: Mixture) -> np.ndarray:
        """`(n,)` int64 rows of `matrix` of a mixture's images, real ones first."""
        return np.concatenate([mixture.real, mixture.pairs + len(self.real.records)])

    def pair_rows(self, mixture: Mixture, folds: np.ndarray | None = None) -> np.ndarray:
        """`(k, 2)` int64 rows (unsafe, safe) of `matrix`: the pairs a mixture has both halves of, in its order.

        For the control `shuffled` the safe halves go round within a category, so that none is its own
        (`shuffled_partners`); a pair that has nobody to exchange with is left out.

        Args:
            folds: `(n,)` fold of each image of the mixture; then both halves of a shuffled pair are of one fold.
        """
        if self.pairs is None or not len(mixture.pairs):
            return np.empty((0, 2), dtype=np.int64)
        place = np.full(len(self.pairs.records) + 1, -1, dtype=np.int64)  # the last for records without a partner
        place[mixture.pairs] = np.arange(len(mixture.pairs))
        rows = mixture.pairs[self.pairs.records.labels[mixture.pairs] == 1]
        partners = self._partners[rows]
        whole = place[partners] >= 0
        rows, partners = rows[whole], partners[whole]
        order = np.argsort(np.maximum(place[rows], place[partners]))
        rows, partners = rows[order], partners[order]
        if mixture.control == "shuffled":
            categories = self.pairs.records.categories[rows].astype(str)
            apart = None if folds is None else folds[mixture.n_real :][place[rows]]
            others = shuffled_partners(categories, mixture.seed, apart)
            own = others == np.arange(len(rows))
            rows, partners = rows[~own], partners[others][~own]
        return np.stack([rows, partners], axis=1) + len(self.real.records)

    @cached_property
    def _partners(self) -> np.ndarray:
        """`(N_pairs,)` int64 row, in the pair pool, of the other half of each record; -1 where there is none."""
        assert self.pairs is not None
        from guardtrain.metrics import record_pairs  # which imports torch, and sizes are asked for without it

        safe, unsafe = record_pairs(self.pairs.records)
        partners = np.full(len(self.pairs.records), -1, dtype=np.int64)
        partners[safe], partners[unsafe] = unsafe, safe
        return partners

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over all a result depends on: encoder, embeddings, the columns that decide draws and slices."""
        return self._digest({"real": self.real, "pairs": self.pairs, **dict(sorted(self.tests.items()))})

    @cached_property
    def validation_digest(self) -> str:
        """Hex sha256 over what is marked for validation: no run's result depends on it, but the choice among them."""
        return self._digest(dict(sorted(self.validation.items())))

    def _digest(self, parts: Mapping[str, Embeddings | None]) -> str:
        h = hashlib.sha256(self.spec.fingerprint.encode())
        for name, part in parts.items():
            if part is None:
                continue
            h.update(name.encode())
            for column in _DECIDING:
                h.update(json.dumps(part.records.column(column).tolist()).encode())
            for start in range(0, len(part), _BLOCK_ROWS):
                h.update(np.ascontiguousarray(part.matrix[start : start + _BLOCK_ROWS]).data)
        return h.hexdigest()


def make_pools(
    name: str,
    pools: Mapping[str, Embeddings],
    tests: Mapping[str, Embeddings | HoldOut],
    *,
    seed: int,
    keep_copies: bool = False,
    swapped: float | None = None,
) -> Pools:
    """Take the held-out test sets out of the pools and check that nothing leaks.

    Records of a pool that show what a test set shows, under other ids, are left out (`without_copies`).

    Args:
        name: the data's name.
        pools: `real` and perhaps `pairs`.
        tests: test sets by name: embeddings of their own, or what to hold out of a pool.
        seed: draws the held-out groups.
        keep_copies: leave copies where they are, for who looks for them.
        swapped: share of the pair pool's pairs whose labels are swapped (`with_swapped_pairs`).

    Raises:
        DataError: a record or group is in a pool and a test set, a test set holds one class only, or embeddings are not
            what their encoder gives.
        EncoderError: parts that come from different encoders.
    """
    own = {f"data.test.{test}": part for test, part in tests.items() if not isinstance(part, HoldOut)}
    for place, part in ({f"data.{key}": part for key, part in pools.items()} | own).items():
        require_same(pools["real"].spec, part.spec, what=f"{place} and data.real")
        _require_of_encoder(place, part)
    unseen = {name for what in tests.values() if isinstance(what, HoldOut) for name in what.categories}
    remaining = {key: _without(_trainable(part), unseen) for key, part in pools.items()}
    for key, part in remaining.items():
        _require_both_labels(f"data.{key}", part)
    sets: dict[str, Embeddings] = {}
    for test, what in tests.items():
        if not isinstance(what, HoldOut):
            sets[test] = what
            continue
        if what.pool not in pools:
            raise ConfigError(f"data.test.{test} holds out of '{what.pool}', but there is no such pool.")
        if what.categories:
            part = pools[what.pool]
            known = sorted({str(name) for name in part.records.categories if name is not None})
            if strange := [name for name in what.categories if name not in known]:
                raise DataError(
                    f"data.test.{test}: no record of data.{what.pool} has category '{strange[0]}'."
                    f"{did_you_mean(strange[0], known)} There are: {', '.join(known) or 'none'}."
                )
            sets[test] = part.take(np.flatnonzero(_of_categories(part, what.categories)))
            continue
        if what.split is not None:
            part = pools[what.pool]
            held = np.asarray(part.records.splits == what.split)
            if not held.any():
                raise DataError(f"data.test.{test}: no record of data.{what.pool} has split '{what.split}'.")
            sets[test] = part.take(np.flatnonzero(held))
            continue
        part = remaining[what.pool]
        pool = Pool.from_records(part.records, name=what.pool)
        held = hold_out(pool, groups=what.groups, fraction=what.fraction, seed=seed)
        sets[test] = part.take(np.flatnonzero(held))
        remaining[what.pool] = part.take(np.flatnonzero(~held))
    seen = {key: _without(part, unseen) for key, part in pools.items()}
    marked = {key: kept for key, part in seen.items() if (kept := _validating(part, sets.values())) is not None}
    notes = []
    sketches = {} if keep_copies else {test: sketched([part.matrix]) for test, part in sets.items()}
    for key, part in [] if keep_copies else list(remaining.items()):
        remaining[key], note = without_copies(f"data.{key}", part, sets, sketches)
        if note is not None:
            notes.append(note)
            _require_both_labels(f"data.{key}", remaining[key])
        if key in marked:
            marked[key], _ = without_copies(key, marked[key], sets, sketches)
    marked = {key: part for key, part in marked.items() if len(part)}
    if swapped and "pairs" in remaining:
        remaining["pairs"], line = with_swapped_pairs(remaining["pairs"], swapped, seed)
        notes.append(line)
    whole = Pools(name, remaining["real"], remaining.get("pairs"), sets, marked, tuple(notes))
    _check(whole)
    return whole


def pools_of_records(
    name: str, pools: Mapping[str, Records], tests: Mapping[str, Records | HoldOut], *, seed: int
) -> Pools:
    """Return what `make_pools` will make of the records when they are embedded, to ask which or how many they are.

    Copies are among them, which only embeddings tell.

    Its embeddings are nothing but zeros.

    Raises:
        DataError: see `make_pools`.
    """
    spec = external_spec({"name": "none"}, 1)

    def part(records: Records) -> Embeddings:
        return Embeddings(records, np.zeros((len(records), 1), np.float32), spec)

    sets = {test: what if isinstance(what, HoldOut) else part(what) for test, what in tests.items()}
    parts = {pool: part(records) for pool, records in pools.items()}
    return make_pools(name, parts, sets, seed=seed, keep_copies=True)


def _trainable(part: Embeddings) -> Embeddings:
    """Without the records whose split says val or test."""
    keep = np.array([split in (None, "train") for split in part.records.splits], dtype=bool)
    return part if keep.all() else part.take(np.flatnonzero(keep))


def _of_categories(part: Embeddings, categories: Collection[str]) -> np.ndarray:
    """`(N,)` bool: records of these categories, and what is of a group with one: the other halves of their pairs."""
    own = np.isin(part.records.categories.astype(str), list(categories))
    return np.isin(part.records.groups.astype(str), part.records.groups[own].astype(str))


def _without(part: Embeddings, categories: Collection[str]) -> Embeddings:
    """Without the records of these categories."""
    return part.take(np.flatnonzero(~_of_categories(part, categories))) if categories else part


def _validating(part: Embeddings, tests: Iterable[Embeddings]) -> Embeddings | None:
    """The records whose split says val, without groups and ids of a test set; None where there are none."""
    rows = np.flatnonzero(part.records.splits == "val")
    if not len(rows):
        return None
    records = part.records
    free = np.ones(len(rows), dtype=bool)
    for test in tests:
        for ours, theirs in ((records.groups, test.records.groups), (records.ids, test.records.ids)):
            free &= ~np.isin(ours[rows].astype(str), theirs.astype(str))
    return part.take(rows[free]) if free.any() else None


def _check(pools: Pools) -> None:
    parts: list[tuple[str, Embeddings]] = [("data.real", pools.real)]
    if pools.pairs is not None:
        parts.append(("data.pairs", pools.pairs))
    tests = [(f"data.test.{name}", part) for name, part in pools.tests.items()]
    for test, part in tests:
        _require_both_labels(test, part)
        for name, pool in parts:
            shared = _shared(part.records.groups, pool.records.groups) or _shared(part.records.ids, pool.records.ids)
            if shared:
                raise DataError(
                    f"{test} and {name} share {len(shared)} groups or ids, such as {', '.join(shared[:3])}: a test set "
                    "must not hold what may be trained on. Remove them from one, or use hold_out."
                )


def _require_of_encoder(name: str, part: Embeddings) -> None:
    """Refuse what a guard would refuse, before anything is trained on it: embeddings that cannot be the encoder's."""
    for start in range(0, len(part), _BLOCK_ROWS):
        rows = np.asarray(part.matrix[start : start + _BLOCK_ROWS])
        if (wrong := wrong_rows(rows, part.spec, start, len(part))) is not None:
            raise DataError(f"{name}: {wrong}")


def _require_both_labels(name: str, part: Embeddings) -> None:
    unsafe = int(part.records.labels.sum())
    if not 0 < unsafe < len(part):
        raise DataError(f"{name} has {len(part) - unsafe} safe and {unsafe} unsafe records; it needs both.")


def _shared(a: np.ndarray, b: np.ndarray) -> list[str]:
    return sorted(set(a.tolist()) & set(b.tolist()))


def describe(pools: Pools) -> Sequence[str]:
    """One line each for pools and test sets: images, unsafe share, pairs."""
    parts = [("real", pools.real), ("pairs", pools.pairs), *((f"test {n}", t) for n, t in pools.tests.items())]
    width = max(len(name) for name, part in parts if part is not None)
    lines = []
    for name, part in parts:
        if part is None:
            continue
        records = part.records
        count = len({p for p in records.pair_ids if p is not None})
        paired = f", {count:,} pairs" if count else ""
        lines.append(f"{name:<{width}}  {len(records):>7,} images, {records.labels.mean():.0%} unsafe{paired}")
    return lines
