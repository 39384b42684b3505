"""The curve as a figure: one panel a test set and metric, one line with a band an arm, control and ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from guardtrain.curves.display_base import Display
from guardtrain.curves.display_style import HeadLine, both_arms, image_ticks, look, per_row, powers_of_two
from guardtrain.curves.paid import PAID, CostSettings, with_paid
from guardtrain.curves.point_intervals import with_test_images
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import (
    OF_SEEDS,
    Line,
    default_panels,
    line_points,
    lines_of,
    number_text,
    seeds_text,
    summarise,
    whole_slices,
)
from guardtrain.curves.summary import check_panels, heads_text, in_table_order
from guardtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from guardtrain.curves.bootstrap import PointReplicates

X_AXES = ("auto", "budget", *PAID, "n_pair_images")

_LEAST_SPAN = 0.05  # of a y axis of shares
_ONE = "One seed: no bands."
_TWO = 2  # seeds whose t interval is 12.7 standard errors to either side: it says nothing and would fill the panel


@dataclass(frozen=True)
class CurvePanel:
    """One panel: `points` is `guardtrain.curves.statistics.summarise` of one head's `metric` on `test`.

    Args:
        head: its name; where heads are the lines, how many there are ("10 methods").
        n_test, n_pairs: sizes of the test set.
        heads: all heads of the figure where they are the lines, else empty.
        resampled: whether the intervals are over test groups, too, and not over seeds alone.
    """

    head: str
    test: str
    metric: str
    n_test: int
    n_pairs: int
    points: pd.DataFrame
    heads: tuple[str, ...] = field(default=(), kw_only=True)
    resampled: bool = field(default=False, kw_only=True)

    def lines(self, over_ratios: bool) -> list[Line]:
        """The panel's lines in reading order."""
        if not self.heads:
            return lines_of(self.points, over_ratios)
        (line,) = lines_of(self.points)
        own = set(self.points["head"])
        made = [HeadLine(line.arm, line.control, line.ratio, head, i) for i, head in enumerate(self.heads)]
        return [line for line in made if line.head in own]

    def along(self, line: Line) -> pd.DataFrame:
        """The points of one of the lines, see `guardtrain.curves.statistics.line_points`."""
        if isinstance(line, HeadLine):
            return line_points(self.points[self.points["head"] == line.head], line)
        return line_points(self.points, line)


@dataclass
class CurveDisplay(Display):
    """A data-efficiency curve, drawn by `plot` after `from_results` has made the statistics.

    Args:
        panels: what is drawn, in order.
        x: what the axis is: one of `X_AXES`, not `auto`.

    >>> # CurveDisplay.from_results(table.read(), [("pairs", "auroc")]).save("runs/scenes")
    """

    panels: Sequence[CurvePanel]
    x: str

    name: ClassVar[str] = "curve"
    marks: ClassVar[Mapping[str, float]] = {}  # sizes of lines and markers other than the style's

    @classmethod
    def from_results(
        cls,
        frame: pd.DataFrame,
        panels: Sequence[tuple[str, str]] | None = None,
        *,
        x: str = "auto",
        costs: CostSettings | None = None,
        boots: Mapping[tuple[str, str], PointReplicates] | None = None,
        title: str | None = None,
        width: float | None = None,
    ) -> CurveDisplay:
        """Statistics of a results table, ready to plot.

        Every head has its own panels, with the y axis of the others' on the same test set and metric. Heads that have
        real data alone are lines of one panel instead.

        Args:
            frame: a results table, see `guardtrain.curves.results.ResultsTable.read`; of the slices, `all` is drawn.
            panels: (test set, metric) pairs; None for `guardtrain.curves.statistics.default_panels`. One without
                values, such as a pair metric on a test set without pairs, is left out with a note.
            x: `budget`; what was paid: `images` used (the add arm's, too), `labels` that a person gave, `contexts`
                (scenes) or `cost`, see `guardtrain.curves.paid.with_paid`; `n_pair_images`, one line a control over the
                images added at a single budget; `auto` takes the last where there is one budget and several
                ratios, and the first otherwise.
            costs: of a label, an edit and a check, for `cost`.
            boots: bootstraps by (test, metric): bands of these are over seeds and test groups, of others over seeds.
            title, width: see `Display`.

        Raises:
            DataError: an empty table, an unknown test set or metric, no panel with values, or `n_pair_images` with
                several budgets.
            ConfigError: an unknown `x`.
        """
        whole = whole_slices(frame)
        x = chosen_x(whole, x)
        chosen = check_panels(whole, panels if panels is not None else default_panels(whole))
        as_lines = heads_as_lines(whole)
        made, notes = [], []
        for head, own in panel_heads(whole):
            for test, metric in chosen:
                rows = own[own["test"] == test]
                if rows.empty or rows[metric].isna().all():
                    notes.append(f"{METRICS[metric]} has no values on '{test}' ({head}): left out.")
                    continue
                boot = (boots or {}).get((test, metric))
                points = in_table_order(with_test_images(summarise(rows, metric), boot), rows)
                points = with_paid(points[points["n_seeds"] > 0].reset_index(drop=True), costs or CostSettings())
                n_pairs = int(rows["n_pairs"].iloc[0])
                panel = CurvePanel(head, test, metric, int(rows["n_test"].iloc[0]), n_pairs, points, heads=as_lines)
                if boot is not None:
                    panel = replace(panel, resampled=True)
                made.append(panel)
        if not made:
            raise DataError(f"Nothing to draw. {' '.join(notes)}")
        return cls(made, x, title=title, notes=tuple(notes), width=width)

    def caption(self) -> str:
        """Say what lines and bands are, over how many seeds, and what was left out."""
        counts = np.concatenate([panel.points["n_seeds"].to_numpy() for panel in self.panels])
        many = seeds_text(counts)
        resampled = {panel.resampled for panel in self.panels}
        over = "95 % intervals over seeds and test images" if resampled == {True} else "95 % Student t intervals"
        over += "" if resampled == {True} else f" over {OF_SEEDS}"
        if len(resampled) > 1:
            named = [f"{METRICS[p.metric]} on '{p.test}'" for p in self.panels if p.resampled]
            over += f", of {', '.join(dict.fromkeys(named))} over test images, too"
        text = f"Lines: means over {many}. Bands: {over}, for each point by itself."
        if counts.max() < 2:
            text = _ONE
        elif counts.min() < 2:
            text += " Points with one have none."
        if (counts == _TWO).any():
            of_two = "where a point has two seeds" if counts.max() > _TWO else "the two seeds"
            text = text if counts.max() > _TWO else f"Lines: means over {many}."
            text += f" Dots: {of_two}; an interval of two is 12.7 standard errors to either side, so none is drawn."
        if any(self._limits(panel)[2] for panel in self.panels):
            text += " Bands that leave a panel go on beyond it."
        return " ".join([text, *self.notes])

    def alt(self) -> str:
        """Each panel in a sentence: what is on its axes, and where its lines end."""
        which = both_arms(self._lines())
        sentences = []
        for panel in self.panels:
            ends = []
            for line in panel.lines(self.x == "n_pair_images"):
                last = panel.along(line).iloc[-1]
                ends.append(f"{line.label(which)} {number_text(float(last['mean']))}")
            budgets = panel.points["budget"]
            span = f"budgets n from {budgets.min():,} to {budgets.max():,} images"
            if self.x == "n_pair_images":
                span = f"pair images at a budget of {budgets.max():,}"
            sentences.append(f"{self._name(panel)} over {span}; at the right end: {', '.join(ends)}.")
        return f"Line chart in {len(self.panels)} panels. " + " ".join(sentences)

    def _name(self, panel: CurvePanel) -> str:
        return f"{METRICS[panel.metric]} on test set '{panel.test}' ({panel.head})"

    def _lines(self) -> list[Line]:
        found = {line for panel in self.panels for line in panel.lines(self.x == "n_pair_images")}
        return sorted(found, key=lambda line: line.order)

    def _draw(self, panel: CurvePanel, ax: Axes, lines: list[Line], inches: float) -> None:
        own = panel.lines(self.x == "n_pair_images")
        ticks: set[float] = set()
        for line in (line for line in lines if line in own):
            points = panel.along(line)
            column = "added" if self.x == "n_pair_images" else self.x
            x, mean = points[column].to_numpy(float), points["mean"].to_numpy(float)
            style = look(line, lines) | dict(self.marks)
            label = line.label(both_arms(lines))
            if self.x == "n_pair_images" and line.control == "none":
                ax.axhline(mean[0], color=style["color"], linewidth=0.8, linestyle="-", zorder=1.5)
            ax.plot(x, mean, label=label, zorder=3 if line.control in ("none", "paired") else 2.5, **style)
            low, high = _band(panel, points)
            ax.fill_between(x, low, high, color=style["color"], alpha=0.14 if len(own) <= 7 else 0.09, lw=0)
            for values in _two_runs(points):
                ax.plot(x, values, ls="", marker="o", ms=2, mew=0, color=style["color"], alpha=0.7, zorder=2.2)
            ticks.update(x)
        self._over(panel, ax, sorted(ticks), inches)
        if self._leftmost(ax):
            ax.set_ylabel(self._measure(panel))
        ax.set_title(self._heading(panel), loc="left", color="0.35")

    def _measure(self, panel: CurvePanel) -> str:
        return f"{METRICS[panel.metric]}\non test set '{panel.test}'"

    def _heading(self, panel: CurvePanel) -> str:
        size = f"{panel.n_test:,} images" + (f", {panel.n_pairs:,} pairs" if panel.n_pairs else "")
        if panel.heads:
            return f"{panel.head} · {size}"
        return f"{panel.head}\n{size}" if len({p.head for p in self.panels}) > 1 else size

    def _alone(self) -> tuple[float, float]:
        return (5.6, 3.6) if self.panels[0].heads else super()._alone()

    def _beside(self) -> int:
        heads = len({panel.head for panel in self.panels})
        kinds = len({(panel.test, panel.metric) for panel in self.panels})
        aligned = heads > 1 and 1 < kinds <= 3 and len(self.panels) == heads * kinds
        return kinds if aligned else per_row(len(self.panels))

    def _over(self, panel: CurvePanel, ax: Axes, ticks: list[float], inches: float) -> None:
        """The x axis, whose marks stand at `ticks`."""
        labels = {
            "budget": "Budget n (labelled images)",
            "images": "Training images used",
            "labels": "Labels given by people",
            "contexts": "Contexts (scenes) used",
            "cost": "Cost of labels, edits, checks",
            "n_pair_images": f"Images added to {int(panel.points['budget'].iloc[0]):,} real (pairs: two each)",
        }
        replaced = self.x == "n_pair_images" and not (panel.points["arm"] == "add").any()
        if self._lowest(ax):
            ax.set_xlabel(f"Pair images among {int(panel.points['budget'].iloc[0]):,}" if replaced else labels[self.x])
        positive = [t for t in ticks if t > 0]
        if self.x == "n_pair_images":
            if positive and max(positive) > 4 * min(positive):
                ax.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.5)
                ax.set_xlim(-min(positive) / 4, max(positive) * 1.2)
        else:
            ax.set_xscale("log", base=2)
        if self.x in PAID:  # ratios give each line its own n: ticks at powers of two instead
            ticks = powers_of_two(ticks[0], ticks[-1]) or ticks
        image_ticks(ax, ticks, inches)

    def _finish(self, panel: CurvePanel, ax: Axes) -> None:
        from matplotlib.ticker import ScalarFormatter

        low, high, _ = self._limits(panel)
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

    def _limits(self, panel: CurvePanel) -> tuple[float, float, bool]:
        """Ends of the panel's y axis, the same for all heads, and whether a band leaves it.

        All means are shown, and bands as far as they are no longer than the range of means: at two or three seeds they
        would leave nothing else to be seen.
        """
        alike = [p.points for p in self.panels if self._alike(p, panel)]
        means = np.concatenate([points["mean"].to_numpy(float) for points in alike])
        ends = np.concatenate([one for points in alike for one in (*_band(panel, points), *_two_runs(points))])
        ends = np.append(ends[np.isfinite(ends)], means)
        span = max(means.max() - means.min(), _LEAST_SPAN)
        low, high = max(ends.min(), means.min() - span), min(ends.max(), means.max() + span)
        low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
        if _is_share(panel):
            low, high = max(low, -0.005), min(high, 1.005)
            spare = max(0.0, _LEAST_SPAN - (high - low))  # a ceiling of 1.000 is no reason to magnify noise
            low, high = max(low - spare, -0.005), min(high + spare, 1.005)
        return low, high, bool(ends.min() < low or ends.max() > high)

    def _alike(self, one: CurvePanel, other: CurvePanel) -> bool:
        """Whether two panels have the same y axis."""
        return (one.test, one.metric) == (other.test, other.metric)


def _is_share(panel: CurvePanel) -> bool:
    """Whether the metric lies in [0, 1]: all do but one."""
    return panel.metric != "pair_margin"


def _possible(panel: CurvePanel, values: np.ndarray) -> np.ndarray:
    """Ends of intervals that the metric can reach; a t interval of shares does not know that they end at 0 and 1."""
    return np.clip(values, 0, 1) if _is_share(panel) else values


def _band(panel: CurvePanel, points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the band (K,), NaN where there is none: of fewer than three seeds."""
    many = points["n_seeds"].to_numpy() > _TWO
    low, high = (_possible(panel, points[name].to_numpy(float)) for name in ("low", "high"))
    return np.where(many, low, np.nan), np.where(many, high, np.nan)


def _two_runs(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The values (K,) of both runs where a point has two, else NaN: mean and standard deviation say them."""
    step = np.where(points["n_seeds"].to_numpy() == _TWO, points["std"].to_numpy(float) / np.sqrt(2), np.nan)
    mean = points["mean"].to_numpy(float)
    return mean - step, mean + step


def heads_as_lines(whole: pd.DataFrame) -> tuple[str, ...]:
    """The heads, where there are several and they have nothing but real data alone; else none."""
    heads = tuple(str(head) for head in dict.fromkeys(whole["head"]))
    return heads if len(heads) > 1 and set(whole["control"]) == {"none"} else ()


def panel_heads(whole: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return what panels are made of: the rows of each head by its name, or all rows where heads are lines."""
    if heads_as_lines(whole):
        return [(heads_text(whole), whole)]
    return [(str(head), whole[whole["head"] == head]) for head in dict.fromkeys(whole["head"])]


def chosen_x(frame: pd.DataFrame, x: str) -> str:
    """`x` with `auto` decided for the results in `frame`; errors as of `CurveDisplay.from_results`."""
    if x not in X_AXES:
        raise ConfigError(f"Unknown x axis '{x}'; allowed: {', '.join(X_AXES)}.")
    budgets = sorted(int(b) for b in frame["budget"].unique())
    if x == "auto":
        return "n_pair_images" if len(budgets) == 1 and len(frame["ratio"].unique()) > 1 else "budget"
    if x == "n_pair_images" and len(budgets) > 1:
        raise DataError(
            f"x='n_pair_images' draws one budget, and the results have {', '.join(map(str, budgets))}: "
            "select one, or take x='budget'."
        )
    return x
