"""The curve as a figure: one panel a test set and metric, one line with a band an arm, control and ratio."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import Line, default_panels, line_points, lines_of, seeds_text, summarise
from guardtrain.curves.summary import check_panels, whole_slices
from guardtrain.errors import ConfigError, DataError
from guardtrain.files import replace_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X_AXES = ("auto", "budget", "n_images", "n_pair_images")

# Okabe and Ito's palette without its yellow, which is too pale for a line on white. Black is real data alone.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES: dict[str, Any] = {"none": "-", "paired": "-", "unpaired": (0, (4, 2)), "real": (0, (1, 1.5))}
_LEAST_SPAN = 0.05  # of a y axis of shares
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 8,
    "axes.titlesize": 7,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "guardtrain",  # the same results give the same bytes
}


@dataclass(frozen=True)
class CurvePanel:
    """One panel: `points` is `guardtrain.curves.statistics.summarise` of one head's `metric` on `test`."""

    head: str
    test: str
    metric: str
    n_test: int
    n_pairs: int
    points: pd.DataFrame


@dataclass
class CurveDisplay:
    """A data-efficiency curve, drawn by `plot` after `from_results` has made the statistics.

    Args:
        panels: what is drawn, in order.
        x: budget, n_images or n_pair_images.
        title: above the figure; None for none.
        notes: what was left out and why; they stand in the caption.

    Attributes:
        figure_: the figure, after `plot`.
        axes_: its axes, one a panel, after `plot`.

    >>> # CurveDisplay.from_results(table.read(), [("pairs", "auroc")]).save("runs/scenes")
    """

    panels: list[CurvePanel]
    x: str
    title: str | None = None
    notes: tuple[str, ...] = ()
    figure_: Figure | None = field(default=None, init=False, repr=False)
    axes_: list[Axes] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def from_results(
        cls,
        frame: pd.DataFrame,
        panels: Sequence[tuple[str, str]] | None = None,
        *,
        x: str = "auto",
        title: str | None = None,
    ) -> CurveDisplay:
        """Statistics of a results table, ready to plot; every head has its own panels.

        Args:
            frame: a results table, see `guardtrain.curves.results.ResultsTable.read`; of the slices, `all` is drawn.
            panels: (test set, metric) pairs; None for `guardtrain.curves.statistics.default_panels`. One without
                values, such as a pair metric on a test set without pairs, is left out with a note.
            x: `budget`; `n_images`, the images the add arm really used; `n_pair_images`, one line a control over the
                images added at a single budget; `auto` takes the last where there is one budget and several
                ratios, and the first otherwise.
            title: above the figure.

        Raises:
            DataError: an empty table, an unknown test set or metric, no panel with values, or `n_pair_images` with
                several budgets.
            ConfigError: an unknown `x`.
        """
        if x not in X_AXES:
            raise ConfigError(f"Unknown x axis '{x}'; allowed: {', '.join(X_AXES)}.")
        whole = whole_slices(frame)
        budgets = sorted(int(b) for b in whole["budget"].unique())
        if x == "auto":
            x = "n_pair_images" if len(budgets) == 1 and len(whole["ratio"].unique()) > 1 else "budget"
        if x == "n_pair_images" and len(budgets) > 1:
            raise DataError(
                f"x='n_pair_images' draws one budget, and the results have {', '.join(map(str, budgets))}: "
                "select one, or take x='budget'."
            )
        chosen = check_panels(whole, panels if panels is not None else default_panels(whole))
        made, notes = [], []
        for head in dict.fromkeys(whole["head"]):
            for test, metric in chosen:
                rows = whole[(whole["head"] == head) & (whole["test"] == test)]
                if rows.empty or rows[metric].isna().all():
                    notes.append(f"{METRICS[metric]} has no values on '{test}' ({head} head): left out.")
                    continue
                points = summarise(rows, metric)
                points = points[points["n_seeds"] > 0].reset_index(drop=True)
                n_test, n_pairs = (int(rows[name].iloc[0]) for name in ("n_test", "n_pairs"))
                made.append(CurvePanel(str(head), test, metric, n_test, n_pairs, points))
        if not made:
            raise DataError(f"Nothing to draw. {' '.join(notes)}")
        return cls(made, x, title, tuple(notes))

    def plot(self, axes: Axes | Iterable[Axes] | None = None) -> CurveDisplay:
        """Draw the panels.

        Args:
            axes: one a panel, to draw into a figure of yours, which then gets no legend or caption of ours; None
                makes a figure 7 inches wide (one panel: 4.4), without touching pyplot's state.

        Returns:
            The display, with `figure_` and `axes_` set.

        Raises:
            DataError: another number of axes than of panels.
        """
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        lines = self._lines()
        with rc_context(_STYLE):
            if axes is not None:
                self.axes_ = list(axes) if isinstance(axes, Iterable) else [axes]
                if len(self.axes_) != len(self.panels):
                    raise DataError(f"{len(self.panels)} panels need as many axes; {len(self.axes_)} were given.")
                self.figure_ = self.axes_[0].figure.canvas.figure  # the root, also of a subfigure's axes
            else:
                per_row = _per_row(len({(p.test, p.metric) for p in self.panels}))
                width = 7.0 if per_row > 1 else 4.4
                rows = -(-len(self.panels) // per_row)
                caption = textwrap.fill(self.caption(), int(18 * width))
                entries, columns = _legend_grid(lines, width)
                below = 0.16 * (len(entries) // columns + caption.count("\n") + 1) + 0.15
                height = rows * (2.4 if per_row > 1 else 2.9) + below + 0.25 * bool(self.title)
                self.figure_ = Figure(figsize=(width, height), layout="constrained")
                FigureCanvasAgg(self.figure_)
                grid = self.figure_.subplots(rows, per_row, squeeze=False).ravel().tolist()
                for unused in grid[len(self.panels) :]:
                    unused.remove()
                self.axes_ = grid[: len(self.panels)]
            for panel, ax in zip(self.panels, self.axes_, strict=True):
                self._draw(panel, ax, lines)
            if axes is None:
                self._frame(entries, columns, caption)
        return self

    def save(self, folder: str | Path, name: str = "curve") -> list[Path]:
        """Write `<name>.png` (200 dots an inch) and `<name>.svg` (text as text, no date) into `folder`.

        Returns:
            The two paths.
        """
        from matplotlib import rc_context

        if self.figure_ is None:
            self.plot()
        figure = self.figure_
        assert figure is not None
        paths = [Path(folder) / f"{name}.{kind}" for kind in ("png", "svg")]
        for path, kind, metadata in zip(paths, ("png", "svg"), ({"Software": None}, {"Date": None}), strict=True):

            def write(to: Path, kind: str = kind, metadata: dict[str, None] = metadata) -> None:
                figure.savefig(to, format=kind, dpi=200, metadata=metadata)

            with rc_context(_STYLE):
                replace_file(path, write)
        return paths

    def caption(self) -> str:
        """What lines and bands are, over how many seeds, and what was left out."""
        counts = np.concatenate([panel.points["n_seeds"].to_numpy() for panel in self.panels])
        bands = "Bands: 95 % Student t intervals over seeds (draws of the training images; the test sets are fixed)."
        if counts.max() < 2:
            text = "One seed: no bands."
        elif counts.min() < 2:
            text = f"Lines: means over {seeds_text(counts)}. {bands} Points with one seed have none."
        else:
            text = f"Lines: means over {seeds_text(counts)}. {bands}"
        return " ".join([text, *self.notes])

    def _lines(self) -> list[Line]:
        """The lines of all panels together, so that a line looks the same in each."""
        found = {line for panel in self.panels for line in lines_of(panel.points, self.x == "n_pair_images")}
        return sorted(found, key=lambda line: line.order)

    def _draw(self, panel: CurvePanel, ax: Axes, lines: list[Line]) -> None:
        own = lines_of(panel.points, self.x == "n_pair_images")
        ticks: set[float] = set()
        for line in (line for line in lines if line in own):
            points = line_points(panel.points, line)
            column = "added" if self.x == "n_pair_images" else self.x
            x, mean = points[column].to_numpy(float), points["mean"].to_numpy(float)
            look = _look(line, lines)
            label = line.label(_both_arms(lines))
            if self.x == "n_pair_images" and line.control == "none":
                ax.axhline(mean[0], color=look["color"], linewidth=0.8, linestyle="-", zorder=1.5)
            ax.plot(x, mean, label=label, zorder=3 if line.control in ("none", "paired") else 2.5, **look)
            ax.fill_between(
                x, points["low"].to_numpy(float), points["high"].to_numpy(float), color=look["color"], alpha=0.14, lw=0
            )
            ticks.update(x)
        self._axes(panel, ax, sorted(ticks))

    def _axes(self, panel: CurvePanel, ax: Axes, ticks: list[float]) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, ScalarFormatter

        labels = {
            "budget": "Budget n (labelled images)",
            "n_images": "Training images used (labels)",
            "n_pair_images": f"Images added to {int(panel.points['budget'].iloc[0]):,} real (pairs: two each)",
        }
        replaced = self.x == "n_pair_images" and not (panel.points["arm"] == "add").any()
        ax.set_xlabel(f"Pair images among {int(panel.points['budget'].iloc[0]):,}" if replaced else labels[self.x])
        positive = [t for t in ticks if t > 0]
        if self.x == "n_pair_images":
            if positive and max(positive) > 4 * min(positive):
                ax.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.5)
                ax.set_xlim(-min(positive) / 4, max(positive) * 1.2)
        else:
            ax.set_xscale("log", base=2)
        if self.x == "n_images":  # ratios give each line its own n: ticks at powers of two instead
            ticks = [2.0**k for k in range(int(np.ceil(np.log2(ticks[0]))), int(np.log2(ticks[-1])) + 1)] or ticks
        labelled = _thinned(ticks, {1: 9, 2: 6}.get(_per_row(len(self.axes_)), 4))
        ax.xaxis.set_major_locator(FixedLocator(labelled))
        ax.xaxis.set_minor_locator(FixedLocator([t for t in ticks if t not in labelled]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel(f"{METRICS[panel.metric]}\non test set '{panel.test}'")
        size = f"{panel.n_test:,} images" + (f", {panel.n_pairs:,} pairs" if panel.n_pairs else "")
        several = len({p.head for p in self.panels}) > 1
        ax.set_title(f"{panel.head} · {size}" if several else size, loc="left", color="0.35")
        low, high = ax.get_ylim()
        if panel.metric != "pair_margin":  # the rest are shares and probabilities; a t interval does not know it
            low, high = max(low, -0.005), min(high, 1.005)
            spare = max(0.0, _LEAST_SPAN - (high - low))  # a ceiling of 1.000 is no reason to magnify noise
            low, high = max(low - spare, -0.005), min(high + spare, 1.005)
            ax.set_ylim(low, high)
        ax.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        if panel.metric in ("auroc", "pair_ranking") and low < 0.5 < high:
            ax.axhline(0.5, color="0.55", linewidth=0.8, linestyle=":", zorder=1)
            ax.annotate(
                "chance",
                (1, 0.5),
                (0, 1.5),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
                color="0.45",
                size=7,
            )

    def _frame(self, entries: Sequence[Line | None], columns: int, caption: str) -> None:
        from matplotlib.lines import Line2D

        figure = self.figure_
        assert figure is not None
        handles: dict[str, Any] = {"": Line2D([], [], linestyle="none")}
        for ax in self.axes_:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        both_arms = _both_arms(self._lines())
        names = ["" if line is None else line.label(both_arms) for line in entries]
        legend = figure.legend(
            [handles[n] for n in names],
            names,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            handlelength=3.2,
        )
        legend.set_title(caption)
        legend.get_title().set_color("0.35")
        if self.title:
            figure.suptitle(self.title, fontsize=10)


def _look(line: Line, lines: Sequence[Line]) -> dict[str, Any]:
    """Colour and marker by arm and ratio, dash by control; a control's markers are hollow."""
    if line.control == "none":
        return {"color": "black", "marker": "x", "linestyle": _DASHES["none"]}
    families = list(dict.fromkeys((other.arm, other.ratio) for other in lines if other.control != "none"))
    index = families.index((line.arm, line.ratio))
    colour = _COLOURS[index % len(_COLOURS)]
    return {
        "color": colour,
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[line.control],
        "markerfacecolor": colour if line.control == "paired" else "white",
    }


def _both_arms(lines: Sequence[Line]) -> bool:
    return len({line.arm for line in lines if line.control != "none"}) > 1


def _per_row(panels: int) -> int:
    return panels if panels <= 3 else 2 if panels == 4 else 3


def _legend_grid(lines: Sequence[Line], width: float) -> tuple[list[Line | None], int]:
    """Legend entries in matplotlib's column-first order and the number of columns that fit into `width` inches.

    A line and its controls stand below each other; None is an empty place.
    """
    both_arms = _both_arms(lines)

    def inches(column: Sequence[Line | None]) -> float:  # of 7.5 point text, with its handle and the gap
        return 0.63 + 0.053 * max(len(line.label(both_arms)) for line in column if line)

    if len(lines) <= 4 and sum(inches([line]) for line in lines) <= width:
        return list(lines), len(lines)
    families: dict[object, list[Line | None]] = {}
    for line in lines:
        families.setdefault("real only" if line.control == "none" else (line.arm, line.ratio), []).append(line)
    tall = max(map(len, families.values()))
    blocks = [family + [None] * (tall - len(family)) for family in families.values()]
    for columns in range(len(blocks), 0, -1):
        deep = -(-len(blocks) // columns)
        stacked = [[line for block in blocks[i : i + deep] for line in block] for i in range(0, len(blocks), deep)]
        if sum(map(inches, stacked)) <= width or columns == 1:
            break
    entries: list[Line | None] = [line for column in stacked for line in column]
    return entries + [None] * (len(stacked) * deep * tall - len(entries)), len(stacked)


def _thinned(ticks: Sequence[float], most: int) -> list[float]:
    """At most about `most` of `ticks`, evenly from the last one down, and always the first."""
    step = -(-len(ticks) // most)
    kept = list(ticks[::-1][::step])[::-1]
    if kept and kept[0] == ticks[1 % len(ticks)]:
        del kept[0]  # the first stands in its place: next to each other their labels would run together
    return kept if kept and kept[0] == ticks[0] else [ticks[0], *kept]
