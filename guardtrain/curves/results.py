"""The results table: one row a run × test set × slice, in an append-only Parquet file that survives being killed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from guardtrain.errors import ConfigError, DataError
from guardtrain.files import replace_file
from guardtrain.mixtures import ARMS
from guardtrain.mixtures import CONTROLS as MIXTURE_CONTROLS

if TYPE_CHECKING:
    import pandas as pd

NO_CONTROL = "none"  # what the table says of a run without pair images
CONTROLS = (NO_CONTROL, *MIXTURE_CONTROLS)
NO_CONTROLS = (NO_CONTROL, MIXTURE_CONTROLS[0])  # real images alone, and whole pairs: what the others are compared with
CONTROL_NAMES = {
    "shuffled": "shuffled control",
    "unpaired": "unpaired control",
    "balanced": "balanced real control",
    "real": "more real control",
}
"""What tables call the controls of pairs, in reading order."""

SLICE_KINDS = ("all", "category", "source")

# Metric columns and what they are called in tables and on axes.
METRICS = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "f1": "F1",
    "accuracy": "Accuracy",
    "recall_at_fpr5": "Recall at 5 % false positives",
    "brier": "Brier score (lower is better)",
    "ece": "Calibration error (lower is better)",
    "pair_both_right": "Pairs with both sides right",
    "pair_ranking": "Pairs ranked right",
    "pair_margin": "Mean pair margin",
}

LOWER_IS_BETTER = tuple(metric for metric, name in METRICS.items() if "lower is better" in name)

ROW_KEY = ("run", "test", "slice_kind", "slice")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One row of the results table: a run, measured on one slice of one test set.

    Args:
        run: the run's resume key, 16 hex characters, see `run_key`.
        head: name of the head.
        arm: replace or add (for ratio 0 the two are the same mixture).
        control: none exactly when `ratio` is 0; otherwise paired, unpaired or real.
        budget: labelled training images the run was granted, before what the add arm puts on top.
        ratio: share of pair images, 0 to 1.
        n_real, n_pair_images, n_images: training images as they were drawn; `n_images` is their sum.
        seed: of the mixture's draw and the head's initialisation.
        test: name of the test set.
        slice_kind, slice: `all`/`all`, or a category's or a source's name.
        n_test, n_unsafe, n_pairs: images, unsafe images and complete pairs in the slice.
        auroc ... pair_margin: see `METRICS`; None (or NaN) where the slice does not define it.
        lr, l2, steps: hyper-parameters as used.
        seconds: the run's share of the training time.
        encoder: fingerprint of the encoder whose embeddings were used.
        data: what names the data; the same for all seeds of a curve.
    """

    run: str
    head: str
    arm: str
    control: str
    budget: int
    ratio: float
    n_real: int
    n_pair_images: int
    n_images: int
    seed: int
    test: str
    slice_kind: str = "all"
    slice: str = "all"
    n_test: int
    n_unsafe: int
    n_pairs: int
    auroc: float | None = None
    average_precision: float | None = None
    f1: float | None = None
    accuracy: float | None = None
    recall_at_fpr5: float | None = None
    brier: float | None = None
    ece: float | None = None
    pair_both_right: float | None = None
    pair_ranking: float | None = None
    pair_margin: float | None = None
    lr: float
    l2: float
    steps: int
    seconds: float
    encoder: str
    data: str


def _schema() -> pa.Schema:
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    hints = get_type_hints(ResultRow)
    return pa.schema(
        pa.field(f.name, arrow.get(hints[f.name], pa.float64()), nullable=f.name in METRICS) for f in fields(ResultRow)
    )


RESULTS_SCHEMA: pa.Schema = _schema()
"""Columns and types of the results table, in order; only the metrics are nullable."""


def run_key(settings: Mapping[str, Any]) -> str:
    """The resume key of a run: 16 hex characters from a hash of everything that determines its result.

    The hash is sha256 over JSON with sorted keys and floats by `repr`, so the order of `settings` does not matter and
    every value does (1, 1.0, True and "1" are four values; a tuple is the same as a list).

    Args:
        settings: nested mappings, sequences, strings, numbers (also numpy's), booleans and None.

    Raises:
        ConfigError: a key that is not a string, a NaN, or a value of another type; the message names it.

    >>> run_key({"head": "linear", "budget": 64}) == run_key({"budget": 64, "head": "linear"})
    True
    """
    text = json.dumps(_plain(settings, "settings"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        if odd := [k for k in value if not isinstance(k, str)]:
            raise ConfigError(f"Keys of {place} must be strings to be hashed into a run key; got {odd[0]!r}.")
        return {k: _plain(v, f"{place}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{place}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # numpy scalars hash as the Python number they are
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{place} is NaN: a run key needs values that equal themselves.")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ConfigError(
        f"{place} is a {type(value).__name__}; a run key is made of strings, numbers, booleans, None, lists, mappings."
    )


class ResultsTable:
    """The results of a curve on disk; any number of processes may append to it at once.

    Args:
        path: the Parquet file; it need not exist yet. A lock file `<name>.lock` lies beside it.

    A run's rows belong in one `append`: a run is either recorded whole or not at all, and `done` relies on it.
    Every append rewrites the file, so hand over the runs of a bank together.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(f"{self.path}.lock")

    def append(self, rows: pa.Table | pd.DataFrame | Iterable[ResultRow | Mapping[str, Any]]) -> int:
        """Add `rows`; those already there by run, test, slice_kind and slice are left as they were first written.

        Returns:
            How many rows were added.

        Raises:
            DataError: `rows` or the file on disk are not a results table; the message names what is wrong.
        """
        new = _conform(_as_table(rows), "the rows to append")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            old = self._load()
            seen = _keys(old)
            keep = []
            for index, key in enumerate(_key_rows(new)):
                if key not in seen:
                    seen.add(key)
                    keep.append(index)
            if keep:
                whole = pa.concat_tables([old, new.take(pa.array(keep, pa.int64()))]).combine_chunks()
                replace_file(self.path, lambda temporary: pq.write_table(whole, temporary))
        return len(keep)

    def done(self, tests: Iterable[str] = ()) -> set[str]:
        """Keys of the runs that are recorded, and, where `tests` are named, recorded on every one of them."""
        table = self._load()
        runs = set(table["run"].to_pylist())
        for test in tests:
            runs &= set(table.filter(pc.equal(table["test"], test))["run"].to_pylist())
        return runs

    def read(self) -> pd.DataFrame:
        """All rows in the order they were written, undefined metrics as NaN; empty where there is no file yet.

        Raises:
            DataError: the file is damaged or not a results table.
        """
        frame: pd.DataFrame = self._load().to_pandas()
        return frame

    def _load(self) -> pa.Table:
        try:
            table = pq.read_table(self.path)
        except FileNotFoundError:
            return RESULTS_SCHEMA.empty_table()
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"The results table {self.path} cannot be read ({str(error).splitlines()[0]}). guardtrain replaces it "
                "whole, so something else damaged it: restore it, or move it away to start over."
            ) from None
        return _conform(table, f"the results table {self.path}")


def _as_table(rows: pa.Table | pd.DataFrame | Iterable[ResultRow | Mapping[str, Any]]) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if hasattr(rows, "columns") and not isinstance(rows, Mapping):
        return pa.Table.from_pandas(rows, preserve_index=False)
    listed: Sequence[dict[str, Any]] = [_as_dict(r) if isinstance(r, ResultRow) else dict(r) for r in rows]
    if not listed:
        return RESULTS_SCHEMA.empty_table()
    names = list(dict.fromkeys(name for row in listed for name in row))
    for index, row in enumerate(listed):
        if missing := [n for n in names if n not in row and n not in METRICS]:
            raise DataError(f"Row {index} of the rows to append has no {', '.join(missing)}, others have.")
    try:
        return pa.table({name: [row.get(name) for row in listed] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"The rows to append mix types in a column: {str(error).splitlines()[0]}") from None


def _as_dict(row: ResultRow) -> dict[str, Any]:
    """Return its fields; `asdict` copies every value, which takes ten times as long for thousands of rows."""
    return {name: getattr(row, name) for name in RESULTS_SCHEMA.names}


def _conform(table: pa.Table, origin: str) -> pa.Table:
    """`table` in exactly `RESULTS_SCHEMA`, its values checked; NaN metrics become null."""
    wanted, given = RESULTS_SCHEMA.names, table.column_names
    missing = [n for n in wanted if n not in given]
    unknown = [n for n in given if n not in wanted]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise DataError(
            f"{origin} is not a results table: it {' and '.join(parts)}. Its columns are {', '.join(wanted)}."
        )
    columns = []
    for field in RESULTS_SCHEMA:
        try:
            column = pc.cast(table[field.name], field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"Column '{field.name}' of {origin} should be {field.type} and is {table[field.name].type}: "
                f"{str(error).splitlines()[0]}"
            ) from None
        if field.nullable:
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        elif column.null_count:
            raise DataError(f"Column '{field.name}' of {origin} has {column.null_count} empty values; it needs all.")
        columns.append(column)
    conformed = pa.table(columns, schema=RESULTS_SCHEMA)
    for name, allowed in (("arm", ARMS), ("control", CONTROLS), ("slice_kind", SLICE_KINDS)):
        if odd := set(pc.unique(conformed[name]).to_pylist()) - set(allowed):
            raise DataError(f"Column '{name}' of {origin} holds {min(odd)!r}; allowed: {', '.join(allowed)}.")
    wrong = pc.not_equal(pc.equal(conformed["ratio"], 0.0), pc.equal(conformed["control"], "none"))
    if pc.any(wrong).as_py():
        row = conformed.filter(wrong).slice(0, 1).to_pylist()[0]
        raise DataError(
            f"In {origin}, run {row['run']} has ratio {row['ratio']:g} and control {row['control']!r}; "
            "control is 'none' exactly where the ratio is 0."
        )
    return conformed


def _key_rows(table: pa.Table) -> Iterable[tuple[str, ...]]:
    return zip(*(table[name].to_pylist() for name in ROW_KEY), strict=True)


def _keys(table: pa.Table) -> set[tuple[str, ...]]:
    return set(_key_rows(table))
