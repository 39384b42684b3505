"""A benchmark as tables: which guard is better, on what, and by how much; for the terminal and for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.benchmarks.coverage import COVERAGE, bounds_cell, coverage_table
from guardtrain.benchmarks.effectiveness import ALIGNED
from guardtrain.benchmarks.measures import LOWER_IS_BETTER, METRICS, NEUTRAL
from guardtrain.benchmarks.shift import BOTH, IN, OUT, WITHIN
from guardtrain.benchmarks.slices import ALL, GENERATED, REAL
from guardtrain.curves.statistics import CONFIDENCE, number_text
from guardtrain.curves.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.benchmarks.effectiveness import Entrant

MAIN = ("f1", "auroc", "accuracy", "fpr", "fnr")
PAIRS = ("pair_both_right", "pair_ranking")
CHANGE = "ΔF1"
_MOST_COLUMNS = 8  # of a table on paper
_BOUNDS = "  with all"
_Lines = list[tuple[str, tuple[Cell, ...]]]


def benchmark_tables(
    frame: pd.DataFrame, entrants: Sequence[Entrant], reference: str, confidence: float = CONFIDENCE
) -> list[Table]:
    """The tables of a benchmark: of each data set all images, verdicts, sources, categories, pairs; then over the sets.

    Args:
        frame: the tidy table, see `guardtrain.benchmarks.effectiveness.COLUMNS`.
        entrants: of the guards, in order.
        reference: the guard that others are compared with.
        confidence: of the intervals.
    """
    out: list[Table | None] = []
    for data in dict.fromkeys(frame.loc[frame["kind"] == "metric", "data"]):
        rows = frame[frame["data"] == data]
        out += [_main_table(rows, entrants, reference, data)]
        out += [coverage_table(rows, [entrant.name for entrant in entrants], data), _source_table(rows, entrants, data)]
        out += [_category_table(rows, entrants, data), _published_table(rows, data)]
        out += [_shift_table(rows, entrants, data), _pair_table(rows, entrants, reference, data)]
    out.append(_distribution_table(frame[frame["kind"] == "distribution"], entrants))
    found = [table for table in out if table is not None]
    return [
        replace(table, caption=f"{table.caption} {brackets(confidence)}") if _has_intervals(table) else table
        for table in found
    ]


def _has_intervals(table: Table) -> bool:
    return any(cell.beside.startswith("[") for _, cells in table.rows for cell in cells)


def narrowed(table: Table, most: int = _MOST_COLUMNS) -> list[Table]:
    """A table with many columns as several with fewer, under the same caption."""
    if len(table.columns) <= most:
        return [table]
    parts = []
    for number, first in enumerate(range(0, len(table.columns), most), start=1):
        at = slice(first, first + most)
        rows = tuple((name, cells[at]) for name, cells in table.rows if any(map(str, cells[at])))
        parts.append(replace(table, label=f"{table.label}-{number}", columns=table.columns[at], rows=rows))
    return parts


def brackets(confidence: float) -> str:
    """Say what the numbers in brackets are."""
    return f"Brackets: {100 * confidence:g} % intervals."


def value_cell(row: pd.Series | None, sign: bool = False) -> Cell:
    """A value with its interval: `.812 [.790, .834]`; a difference with its sign."""
    if row is None:
        return Cell("–")
    value, low, high = float(row["value"]), float(row["low"]), float(row["high"])
    plus = "+" if sign and value > 0 else ""
    ends = f"[{number_text(low)}, {number_text(high)}]" if not np.isnan(low) else ""
    return Cell(plus + number_text(value), ends)


def is_better(row: pd.Series) -> bool | None:
    """Whether a difference is an improvement, beyond its interval; None where it tells neither."""
    if row["metric"] in NEUTRAL or not (row["low"] > 0 or row["high"] < 0):
        return None
    return bool((row["low"] > 0) != (row["metric"] in LOWER_IS_BETTER))


def find(frame: pd.DataFrame, **wanted: str) -> pd.Series | None:
    """The first row with these values."""
    keep = np.ones(len(frame), dtype=bool)
    for name, value in wanted.items():
        keep &= (frame[name] == value).to_numpy()
    return frame.iloc[int(keep.argmax())] if keep.any() else None


def _overall(rows: pd.DataFrame, kind: str, judged_on: str = ALIGNED) -> pd.DataFrame:
    keep = (rows["kind"] == kind) & (rows["judged_on"] == judged_on)
    return rows[keep & (rows["category"] == ALL) & (rows["source"] == ALL)]


def _main_table(rows: pd.DataFrame, entrants: Sequence[Entrant], reference: str, data: str) -> Table:
    own, changes = _overall(rows, "metric"), _overall(rows, "difference")
    everything = _overall(rows, "metric", ALL)
    lines: _Lines = []
    for entrant in entrants:
        found = [find(own, guard=entrant.name, metric=metric) for metric in MAIN]
        found.append(find(everything, guard=entrant.name, metric="flag_rate"))
        change = find(changes, guard=entrant.name, metric="f1")
        versus = Cell("") if entrant.name == reference else value_cell(change, sign=True)
        lines.append((entrant.name + _mark(entrant), (*map(value_cell, found), versus)))
        lines += _bounds_line([*found, change])
    sizes = rows[(rows["kind"] == COVERAGE) & (rows["category"] == ALL) & (rows["source"] == ALL)]
    sizes = sizes[sizes["guard"] == entrants[0].name].drop_duplicates("n_unsafe")
    n, unsafe, pairs = int(sizes["n_images"].sum()), int(sizes["n_unsafe"].sum()), int(sizes["n_pairs"].max())
    sources = f", {pairs:,} pairs" if pairs else ""
    caption = (
        f"Guards on '{data}' ({n:,} images, {unsafe:,} unsafe{sources}). Each on the categories that it is judged on. "
        f"Flagged: the share of all images that it calls unsafe. {CHANGE}: F1 less that of {reference}, on the images "
        f"that both are judged on.{_about_bounds(lines)}"
    )
    columns = (*(METRICS[metric] for metric in MAIN), "flagged", CHANGE)
    return Table(caption, f"tab:benchmark-{_label(data)}", "", columns, tuple(lines))


def _bounds_line(found: Sequence[pd.Series | None]) -> _Lines:
    """Return the row below a guard that lacks verdicts: between what and what its figures would be with them."""
    cells = tuple(map(bounds_cell, found))
    return [(_BOUNDS, cells)] if any(map(str, cells)) else []


def _about_bounds(lines: _Lines) -> str:
    if all(name != _BOUNDS for name, _ in lines):
        return ""
    return " With all: what a figure could be with verdicts on all images, those missing being all wrong or all right."


def _source_table(rows: pd.DataFrame, entrants: Sequence[Entrant], data: str) -> Table | None:
    """Metrics of every guard in each source; None of fewer than two."""
    own = rows[(rows["kind"] == "metric") & (rows["judged_on"] == ALIGNED) & (rows["category"] == ALL)]
    own = own[own["source_kind"] == "source"]
    sources = sorted(set(own["source"]))
    if len(sources) < 2:
        return None
    lines: _Lines = []
    for source in sources:
        mine = own[own["source"] == source]
        lines.append((source, tuple(Cell("") for _ in MAIN)))
        for entrant in entrants:
            cells = tuple(value_cell(find(mine, guard=entrant.name, metric=metric)) for metric in MAIN)
            lines.append((f"  {entrant.name}{_mark(entrant)}", cells))
    caption = f"Guards by source on '{data}'. Each on the categories that it is judged on."
    columns = tuple(METRICS[metric] for metric in MAIN)
    return Table(caption, f"tab:benchmark-{_label(data)}-sources", "", columns, tuple(lines))


def _category_table(rows: pd.DataFrame, entrants: Sequence[Entrant], data: str) -> Table | None:
    """F1 by category and source, a guard a row with its sources below.

    Where no category has both safe and unsafe images F1 says little: then it is the share flagged, of all images.
    """
    mine = rows[(rows["kind"] == "metric") & (rows["category"] != ALL)]
    if mine.empty:
        return None
    metric, judged_on = shown_by_category(mine)
    mine = mine[mine["metric"] == metric]
    categories = sorted(set(mine.loc[mine["judged_on"] == ALL, "category"]))
    kept = sorted(set(mine.loc[mine["source_kind"] == "source", "source"]))
    sources = [ALL, *(kept if len(kept) > 1 else [])]
    mine = mine[mine["judged_on"] == judged_on]
    what = (
        f"{METRICS[metric]} by category{' and source' if len(sources) > 1 else ''} on '{data}'. A dash stands where a "
        "guard is not judged on a category, or nothing defines it."
        if metric == "f1"
        else f"Share flagged by category on '{data}'. Of all images: no category has both safe and unsafe ones."
    )
    lines: _Lines = []
    for entrant in entrants:
        for source in sources:
            cells = tuple(value_cell(find(mine, guard=entrant.name, category=c, source=source)) for c in categories)
            name = entrant.name + _mark(entrant) if source == ALL else f"  {source}"
            if source == ALL or any(cell.main != "–" for cell in cells):
                lines.append((name, cells))
    return Table(what, f"tab:benchmark-{_label(data)}-categories", "", tuple(categories), tuple(lines))


def _published_table(rows: pd.DataFrame, data: str) -> Table | None:
    """Published F1 in the categories and sources that a data set has, with numbers of where they were read."""
    f1 = rows[rows["metric"] == "f1"]
    own = f1[f1["kind"] == "published"]
    if own.empty or not (f1["kind"] == "metric").any():  # of safe images alone there is no F1 to stand beside
        return None
    there = set(own["category"])
    columns = [*sorted(there - {ALL}), *([ALL] if ALL in there else [])]
    origins = list(dict.fromkeys(own["origin"]))
    lines = []
    for (origin, guard, source), some in own.groupby(["origin", "guard", "source"], sort=False, observed=True):
        cells = [Cell("") if (row := find(some, category=c)) is None else value_cell(row) for c in columns]
        where = "" if source == ALL else f", {source}"
        lines.append((f"{guard}{where} [{origins.index(origin) + 1}]", tuple(cells)))
    caption = (
        f"Published F1 in the categories of '{data}'. Their authors', on their images: beside yours, not compared with "
        f"them. {' '.join(f'[{number}] {origin}.' for number, origin in enumerate(origins, start=1))}"
    )
    return Table(caption, f"tab:benchmark-{_label(data)}-published", "", tuple(columns), tuple(lines))


def shown_by_category(rows: pd.DataFrame) -> tuple[str, str]:
    """Which metric says something of a data set's categories, and on which images (`judged_on`).

    F1, or where no category has both safe and unsafe images the share flagged, of all.

    Args:
        rows: of kind `metric` in categories.
    """
    mixed = ((rows["n_unsafe"] > 0) & (rows["n_unsafe"] < rows["n_images"])).any()
    return ("f1", ALIGNED) if mixed else ("flag_rate", ALL)


def _shift_table(rows: pd.DataFrame, entrants: Sequence[Entrant], data: str) -> Table | None:
    own = rows[(rows["kind"] == "shift") & (rows["judged_on"] == ALIGNED)]
    if own.empty:
        return None
    metrics = rows[(rows["kind"] == "metric") & (rows["judged_on"] == ALIGNED) & (rows["source_kind"] == "family")]
    metrics = metrics[metrics["category"] == ALL]
    lines = []
    for entrant in entrants:
        mine = own[own["guard"] == entrant.name]
        cells = [
            value_cell(find(metrics, guard=entrant.name, metric="f1", source=family)) for family in (REAL, GENERATED)
        ]
        cells += [value_cell(find(mine, metric="f1", category=c), sign=True) for c in (ALL, WITHIN)]
        cells += [value_cell(find(mine, metric=m, category=ALL), sign=True) for m in ("auroc", "fpr", "fnr")]
        lines.append((entrant.name + _mark(entrant), tuple(cells)))
    caption = (
        f"From real to generated images on '{data}'. F1 on either, then changes (Δ, generated less real, within each "
        "bootstrap draw) of F1, the same within categories (mean over those with both), of AUROC, FPR and FNR."
    )
    columns = ("F1 real", "F1 generated", CHANGE, f"{CHANGE} within categories", "ΔAUROC", "ΔFPR", "ΔFNR")
    return Table(caption, f"tab:benchmark-{_label(data)}-shift", "", columns, tuple(lines))


def _pair_table(rows: pd.DataFrame, entrants: Sequence[Entrant], reference: str, data: str) -> Table | None:
    own, changes = _overall(rows, "metric"), _overall(rows, "difference")
    if not own["metric"].isin(PAIRS).any():
        return None
    lines: _Lines = []
    for entrant in entrants:
        found = [find(own, guard=entrant.name, metric=metric) for metric in PAIRS]
        change = find(changes, guard=entrant.name, metric="pair_both_right")
        versus = Cell("") if entrant.name == reference else value_cell(change, sign=True)
        lines.append((entrant.name + _mark(entrant), (*map(value_cell, found), versus)))
        lines += _bounds_line([*found, change])
    caption = (
        f"Pairs of '{data}'. Both right: the safe half called safe and the unsafe one unsafe. Ranked right: the unsafe "
        f"half scored higher. Change: of both right, less that of {reference}.{_about_bounds(lines)}"
    )
    columns = ("both right", "ranked right", "change")
    return Table(caption, f"tab:benchmark-{_label(data)}-pairs", "", columns, tuple(lines))


def _distribution_table(rows: pd.DataFrame, entrants: Sequence[Entrant]) -> Table | None:
    own = rows[rows["metric"] == "f1"]
    if own.empty:
        return None
    entrants = [entrant for entrant in entrants if (own["guard"] == entrant.name).any()]
    means, changes = own[own["versus"].isna()], own[own["versus"].notna()]
    lines = []
    for entrant in entrants:
        cells = [value_cell(find(means, guard=entrant.name, data=side)) for side in (IN, OUT, BOTH)]
        change = find(changes, guard=entrant.name)
        cells.append(Cell("–") if change is None else value_cell(change, sign=True))
        lines.append((entrant.name + _mark(entrant), tuple(cells)))
    caption = (
        "F1 in and out of distribution. Means over data sets, each counting the same: those like what a guard was "
        "trained on, the others, all, and the change from the first to the second. A data set without unsafe images "
        "has no F1 and is left out."
    )
    columns = ("in distribution", "out of distribution", "all", "change")
    return Table(caption, "tab:benchmark-distribution", "", columns, tuple(lines))


def _mark(entrant: Entrant) -> str:
    return f" ({', '.join(entrant.categories)})" if entrant.categories else ""


def _label(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
