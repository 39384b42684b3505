"""A benchmark as one figure for a paper: metrics of each guard, F1 by category, the change from real to generated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.benchmarks.bounds import SHOWN_FROM
from guardtrain.benchmarks.coverage import bounds_shown
from guardtrain.benchmarks.effectiveness import ALIGNED
from guardtrain.benchmarks.measures import METRICS
from guardtrain.benchmarks.shift import WITHIN
from guardtrain.benchmarks.slices import ALL, GENERATED, REAL, source_family
from guardtrain.benchmarks.tables import find, shown_by_category
from guardtrain.curves.display_style import STYLE, HeadLine, look
from guardtrain.curves.statistics import CONFIDENCE, number_text
from guardtrain.files import replace_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from guardtrain.benchmarks.effectiveness import Entrant

FIGURE = "benchmark"
WIDTH = 7.0  # inches, a page of two columns
_FOREST = ("f1", "auroc", "fpr", "fnr")
_DOTS = 200
_FLAT = 60  # characters of all categories' names that fit beside each other
_METADATA: dict[str, dict[str, None]] = {  # no dates: the same results give the same bytes
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


@dataclass(frozen=True, eq=False)
class _Grid:
    """A metric of guards (and kinds of sources) in categories: `shades` (rows, columns), NaN where there is none."""

    metric: str
    data: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shades: np.ndarray


def draw(frame: pd.DataFrame, entrants: Sequence[Entrant], confidence: float = CONFIDENCE) -> Figure:
    """The figure of a benchmark.

    Above: F1, AUROC, FPR and FNR of every guard on every data set, with intervals, on the categories that a guard is
    judged on. Below, where the data allow: F1 by category for the first data set with categories, real and generated
    images apart, and the change from real to generated images.

    Args:
        frame: the tidy table, see `guardtrain.benchmarks.effectiveness.COLUMNS`.
        entrants: of the guards, in order.
        confidence: of the intervals, for the caption.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(frame.loc[frame["kind"] == "metric", "data"]))
    grid = next((found for data in sets if (found := _by_category(frame, entrants, data))), None)
    shifted = list(dict.fromkeys(frame.loc[frame["kind"] == "shift", "data"]))
    names = [entrant.name for entrant in entrants]
    each = 0.17 * max(1, 0.75 * len(sets)) + 0.08
    heights = [len(names) * each + 0.75]
    if grid is not None:
        heights.append(0.2 * len(grid.rows) + 1.1)
    if shifted:
        heights.append(len(names) * 0.24 + 0.75)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.45), layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _forest(parts[0], frame, names, sets)
        if grid is not None:
            _heat(parts[1].subplots(), grid)
        if shifted:
            _shift(parts[-1], frame, names, shifted)
        about = f"Bars: {100 * confidence:g} % intervals. Each guard on the categories it is judged on."
        own = frame[frame["kind"] == "metric"]
        if (own["n_missing_unsafe"] + own["n_missing_safe"] > SHOWN_FROM * own["n_images"]).any():
            about += " Pale: from all missing verdicts wrong to all right."
        figure.supxlabel(about, fontsize=7, color="0.35")
    return figure


def save(figure: Figure, folder: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write `benchmark.<format>`, the same bytes for the same results; returns the paths."""
    from matplotlib import rc_context

    logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # it tells which tables of a font it drops
    paths = []
    with rc_context(STYLE):
        figure.draw_without_rendering()  # finds the layout, which takes as long as drawing; once is enough
        figure.set_layout_engine("none")
        for kind in formats:

            def write(to: Path, kind: str = kind) -> None:
                figure.savefig(to, format=kind, dpi=_DOTS, metadata=_METADATA[kind])

            paths.append(folder / f"{FIGURE}.{kind}")
            replace_file(paths[-1], write)
    return paths


def _look(place: int) -> dict[str, Any]:
    found = look(HeadLine("replace", "none", None, "", place), [])
    return {name: found[name] for name in ("color", "marker", "markerfacecolor")}


def _points(ax: Axes, rows: Sequence[pd.Series | None], heights: np.ndarray, label: str, place: int) -> None:
    """Dots with their intervals at some heights; what there is not is left out."""
    there = [(row, y) for row, y in zip(rows, heights, strict=True) if row is not None]
    if not there:
        ax.plot([], [], linestyle="none", markersize=3.5, label=label, **_look(place))
        return
    x = np.array([row["value"] for row, _ in there], dtype=float)
    ends = np.array([[row["low"], row["high"]] for row, _ in there], dtype=float)
    y = np.array([y for _, y in there])
    known = ~np.isnan(ends[:, 0])
    ax.hlines(y[known], ends[known, 0], ends[known, 1], color=_look(place)["color"], linewidth=1.1)
    for row, height in there:
        if bounds_shown(row):
            ax.hlines(height, row["lowest"], row["highest"], color=_look(place)["color"], linewidth=3.5, alpha=0.25)
    ax.plot(x, y, linestyle="none", markersize=3.5, label=label, **_look(place))


def _guards(ax: Axes, names: Sequence[str]) -> None:
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)


def _offsets(count: int) -> np.ndarray:
    return np.linspace(-0.3, 0.3, count) if count > 1 else np.zeros(1)


def _forest(part: Any, frame: pd.DataFrame, names: Sequence[str], sets: Sequence[str]) -> None:
    axes = part.subplots(1, len(_FOREST), sharey=True)
    own = frame[(frame["kind"] == "metric") & (frame["judged_on"] == ALIGNED)]
    own = own[(own["category"] == ALL) & (own["source"] == ALL)]
    for ax, metric in zip(axes, _FOREST, strict=True):
        for place, (data, offset) in enumerate(zip(sets, _offsets(len(sets)), strict=True)):
            rows = [find(own, guard=name, data=data, metric=metric) for name in names]
            _points(ax, rows, np.arange(len(names)) + offset, data, place)
        _guards(ax, names)
        ax.set_xlim(-0.03, 1.03)
        ax.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        better = "lower is better" if metric in ("fpr", "fnr") else "higher is better"
        ax.set_title(f"{METRICS[metric]}\n{better}")
    if len(sets) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        part.legend(handles, labels, loc="outside upper center", ncols=min(5, len(sets)), frameon=False)


def _by_category(frame: pd.DataFrame, entrants: Sequence[Entrant], data: str) -> _Grid | None:
    """F1 (or the share flagged) of each guard in each category, kinds of source apart; None of one category or none."""
    own = frame[frame["data"] == data]
    mine = own[(own["kind"] == "metric") & (own["category"] != ALL)]
    metric, judged_on = shown_by_category(mine)
    mine = mine[mine["metric"] == metric]
    columns = sorted(set(mine.loc[mine["judged_on"] == ALL, "category"]))
    mine = mine[mine["judged_on"] == judged_on]
    if len(columns) < 2 or mine.empty:
        return None
    published = own[(own["kind"] == "published") & (own["metric"] == metric)]
    families = [family for family in (REAL, GENERATED) if (mine["source"] == family).any()]
    rows, values = [], []
    for entrant in entrants:
        for source in families if len(families) == 2 else [ALL]:
            rows.append(entrant.name + ("" if source == ALL else f", {source}"))
            values.append(_values([find(mine, guard=entrant.name, category=c, source=source) for c in columns]))
        theirs = published[published["versus"] == entrant.name]
        for source in dict.fromkeys(theirs["source"]):
            some = theirs[theirs["source"] == source]
            found = _values([find(some, category=c) for c in columns])
            if (source == ALL) == (len(families) < 2) and not np.isnan(found).all():
                where = "" if source == ALL else f", {source_family(source) or source}"
                rows.append(f"{some['guard'].iloc[0]}{where} (published)")
                values.append(found)
    return _Grid(METRICS[metric], data, tuple(rows), tuple(columns), np.array(values))


def _values(rows: Sequence[pd.Series | None]) -> np.ndarray:
    return np.array([np.nan if row is None else float(row["value"]) for row in rows])


def _heat(ax: Axes, grid: _Grid) -> None:
    from matplotlib import colormaps

    values = grid.shades
    shades = colormaps["Blues"].with_extremes(bad="0.94")
    ax.imshow(np.ma.masked_invalid(values), cmap=shades, vmin=0, vmax=1.15, aspect="auto")
    for i, j in np.ndindex(values.shape):
        known = not np.isnan(values[i, j])
        colour = "0.6" if not known else "white" if values[i, j] > 0.65 else "0.15"
        ax.text(
            j,
            i,
            number_text(float(values[i, j]), 2),
            ha="center",
            va="center",
            fontsize=7,
            color=colour,
            in_layout=False,
        )
    if sum(map(len, grid.columns)) > _FLAT:
        ax.set_xticks(range(len(grid.columns)), grid.columns, rotation=30, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(grid.columns)), grid.columns)
    ax.set_yticks(range(len(grid.rows)), grid.rows)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(f"{grid.metric} by category on {grid.data} (–: not judged on it, or none)")


def _signed(value: float) -> str:
    """A change as an axis shows it.

    >>> [_signed(value) for value in (-0.2, 0, 0.025)]
    ['−.2', '0', '+.025']
    """
    text = f"{value:+.3f}".replace("0.", ".", 1).rstrip("0").rstrip(".").replace("-", "−")
    return text if any(character.isdigit() for character in text) else "0"


def _shift(part: Any, frame: pd.DataFrame, names: Sequence[str], sets: Sequence[str]) -> None:
    shown = sets[:3]
    axes = part.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    own = frame[(frame["kind"] == "shift") & (frame["judged_on"] == ALIGNED) & (frame["metric"] == "f1")]
    for ax, data in zip(axes, shown, strict=True):
        mine = own[own["data"] == data]
        for place, (category, label) in enumerate(((ALL, "all images"), (WITHIN, WITHIN))):
            rows = [find(mine, guard=name, category=category) for name in names]
            if place == 0 or any(row is not None for row in rows):
                _points(ax, rows, np.arange(len(names)) + _offsets(2)[place] / 2, label, place)
        _guards(ax, names)
        ax.axvline(0, color="0.5", linewidth=0.8)
        ax.xaxis.set_major_formatter(lambda value, _: _signed(value))
        ax.set_title(f"{METRICS['f1']} on generated less on real images, {data}")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
