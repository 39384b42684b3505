"""Every category in every source as tables: F1, AUROC, accuracy, FPR and FNR of each guard, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guardtrain.benchmarks.effectiveness import ALIGNED
from guardtrain.benchmarks.measures import METRICS
from guardtrain.benchmarks.slices import ALL
from guardtrain.benchmarks.tables import MAIN, brackets, value_cell
from guardtrain.curves.statistics import CONFIDENCE
from guardtrain.curves.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.benchmarks.effectiveness import Entrant

_MISSING = ("n_missing_unsafe", "n_missing_safe")


def detail_tables(frame: pd.DataFrame, entrants: Sequence[Entrant], confidence: float = CONFIDENCE) -> list[Table]:
    """A table for each guard on each data set that has categories: a row a category, its sources below it.

    Args:
        frame: the tidy table, see `guardtrain.benchmarks.effectiveness.COLUMNS`.
        entrants: of the guards, in order.
        confidence: of the intervals.
    """
    own = frame[(frame["kind"] == "metric") & (frame["judged_on"] == ALIGNED) & frame["metric"].isin(MAIN)]
    own = own[own["source_kind"].isin([ALL, "source"])]
    out = []
    for data in dict.fromkeys(own["data"]):
        there = own[own["data"] == data]
        if (there["category"] == ALL).all():
            continue
        for entrant in entrants:
            mine = there[there["guard"] == entrant.name]
            missing = ("missing",) if (mine[list(_MISSING)].sum(axis=1) > 0).any() else ()
            rows = _rows(mine, bool(missing))
            caption = f"{entrant.name} by category and source on '{data}'. {brackets(confidence)}"
            columns = (*(METRICS[metric] for metric in MAIN), "images", "unsafe", *missing)
            out.append(Table(caption, "", "", columns, tuple(rows)))
    return out


def _rows(own: pd.DataFrame, missing: bool) -> list[tuple[str, tuple[Cell, ...]]]:
    """Return the rows of one guard on one data set, with what it has no verdict on, by mapping: there are many."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in own.to_dict("records"):
        found.setdefault((row["category"], row["source"]), {})[row["metric"]] = row
    categories = [ALL, *sorted({category for category, _ in found} - {ALL})]
    sources = sorted({source for _, source in found} - {ALL})
    lines = []
    for category in categories:
        for source in [ALL, *(sources if len(sources) > 1 else [])]:
            if some := found.get((category, source)):
                size = next(iter(some.values()))
                counts = [Cell(f"{size[name]:,}") for name in ("n_images", "n_unsafe")]
                if missing:
                    counts.append(Cell(f"{sum(size[name] for name in _MISSING):,.0f}"))
                cells = (*(value_cell(some.get(metric)) for metric in MAIN), *counts)
                lines.append((category if source == ALL else f"  {source}", cells))
    return lines
