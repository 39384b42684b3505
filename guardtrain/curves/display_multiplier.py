"""The data multiplier over the images used: how many times as many real images do as well, with its intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from guardtrain.curves.bootstrap import BOOTSTRAP_METRICS, PointReplicates, bootstrap_points
from guardtrain.curves.display_base import Display
from guardtrain.curves.display_style import (
    both_arms,
    families_of,
    family_name,
    image_ticks,
    look,
    per_row,
    powers_of_two,
)
from guardtrain.curves.efficiency import Estimate, LineReplicates, data_multiplier
from guardtrain.curves.results import METRICS
from guardtrain.curves.scores import ScoresFolder
from guardtrain.curves.statistics import Line, default_panels, lines_of, seeds_text, whole_slices
from guardtrain.curves.summary import check_panels
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_APART = 0.16  # in log2 of images: how far lines stand apart at one budget


@dataclass(frozen=True)
class LineMultipliers:
    """One line: images used (K,), the multiplier at each, and the fewest and most images of real data alone."""

    line: Line
    n_images: np.ndarray
    estimates: tuple[Estimate, ...]
    real: tuple[float, float]


@dataclass(frozen=True)
class MultiplierPanel:
    """One panel: an arm's pairs at one ratio and their controls, by one metric on one test set."""

    head: str
    test: str
    metric: str
    family: tuple[LineMultipliers, ...]


@dataclass
class MultiplierDisplay(Display):
    """The data multiplier of each line against real data alone, drawn by `plot` after `from_results`.

    See `guardtrain.curves.efficiency.data_multiplier`. Pairs and their controls of one arm and ratio share a panel.

    Args:
        panels: what is drawn, in order.
        replicates: of the bootstrap, for the caption.
        seeds: of each point, for the caption.

    >>> # MultiplierDisplay.from_results(table.read(), "runs/scenes/scores").save("runs/scenes")
    """

    panels: list[MultiplierPanel]
    replicates: int
    seeds: tuple[int, ...]

    name: ClassVar[str] = "multiplier"
    shared: ClassVar[bool] = True

    @classmethod
    def from_results(
        cls,
        frame: pd.DataFrame,
        scores: ScoresFolder | str | Path,
        panels: Sequence[tuple[str, str]] | None = None,
        *,
        replicates: int = 1000,
        title: str | None = None,
        width: float | None = None,
    ) -> MultiplierDisplay:
        """Bootstrap of a curve (see `guardtrain.curves.bootstrap.bootstrap_points`), ready to plot.

        Args:
            frame: a results table.
            scores: the scores folder beside it.
            panels: (test set, metric) pairs; None for the telling ones, see `multiplier_panels`.
            replicates: of the bootstrap over seeds and test groups.
            title, width: see `Display`.

        Raises:
            DataError: an unknown test set or metric, one that cannot be resampled, no pairs or controls, real data
                alone at fewer than two budgets, or runs without scores.
        """
        check_multiplier(frame)
        chosen = multiplier_panels(frame, panels)
        return cls.from_replicates(
            [bootstrap_points(frame, scores, test, metric, replicates) for test, metric in chosen],
            title=title,
            width=width,
        )

    @classmethod
    def from_replicates(
        cls, boots: Sequence[PointReplicates], *, title: str | None = None, width: float | None = None
    ) -> MultiplierDisplay:
        """The display of bootstraps that are there; errors as of `from_results`."""
        made, notes, seeds = [], [], []
        for boot in boots:
            lines = lines_of(boot.points)
            for head in dict.fromkeys(boot.points["head"]):
                real = [line for line in lines if line.control == "none"]
                if not real:
                    raise DataError("The data multiplier compares with real data alone, which the bootstrap lacks.")
                baseline = LineReplicates.of(boot, real[0], head)
                for family in families_of(lines):
                    own = [LineReplicates.of(boot, line, head) for line in family]
                    multiplied = tuple(
                        LineMultipliers(
                            line,
                            part.n_images,
                            tuple(data_multiplier(baseline, part)),
                            (baseline.n_images[0], baseline.n_images[-1]),
                        )
                        for line, part in zip(family, own, strict=True)
                    )
                    made.append(MultiplierPanel(str(head), boot.test, boot.metric, multiplied))
            seeds += boot.points["n_seeds"].tolist()
            if boot.points["n_seeds"].max() < 2:
                notes.append("One seed: intervals hold the spread over test images alone.")
        if not made:
            raise DataError("Nothing to draw: no bootstrap was given.")
        heads = list(dict.fromkeys(panel.head for panel in made))
        made.sort(key=lambda panel: heads.index(panel.head))  # a head's panels stand together
        replicates = boots[0].replicates.shape[1]
        notes = list(dict.fromkeys(notes))
        return cls(made, replicates, tuple(seeds), title=title, notes=tuple(notes), width=width)

    def caption(self) -> str:
        """Say what marks, bars and the shade are, and what is censored."""
        censored = [e for panel in self.panels for own in panel.family for e in own.estimates if _censored(e)]
        tests = {panel.test for panel in self.panels}
        text = (f"Test set '{tests.pop()}'. " if len(tests) == 1 else "") + (
            "Multiplier: how many real images do as well, divided by the images used. Bars: 95 % intervals "
            f"of {self.replicates:,} bootstrap replicates over {seeds_text(self.seeds)} and test groups, for each "
            "point by itself. Shade: beyond the budgets of real data alone, where nothing was measured."
        )
        if censored:
            text += (
                " Open triangles: real data alone never does as well (up) or never as badly (down), so the true "
                "multiplier lies beyond the mark. Arrowheads: the same of an interval's end."
            )
        return " ".join([text, *self.notes])

    def alt(self) -> str:
        """Each panel in a sentence, with the multiplier and its interval at the middle of the curve."""
        which = both_arms(self._lines())
        sentences = []
        for panel in self.panels:
            parts = []
            for own in panel.family:
                k = (len(own.estimates) - 1) // 2
                parts.append(f"{own.line.label(which)} {own.estimates[k].text(1)} at {own.n_images[k]:,.0f} images")
            sentences.append(f"{METRICS[panel.metric]} on test set '{panel.test}': {', '.join(parts)}.")
        return f"Data multiplier against real data alone, in {len(self.panels)} panels. " + " ".join(sentences)

    def _beside(self) -> int:
        heads = len({p.head for p in self.panels})
        kinds = len({(p.test, p.metric) for p in self.panels})
        families = len(self.panels) // (heads * kinds)
        rows_of = families if families > 1 or heads == 1 else kinds
        return rows_of if rows_of in (2, 3) else per_row(len(self.panels))

    def _lines(self) -> list[Line]:
        found = {own.line for panel in self.panels for own in panel.family}
        return sorted(found, key=lambda line: line.order)

    def _draw(self, panel: MultiplierPanel, ax: Axes, lines: list[Line], inches: float) -> None:
        count = len(panel.family)
        images = sorted({float(n) for own in panel.family for n in own.n_images})
        for place, own in enumerate(panel.family):
            style = look(own.line, lines)
            colour, marker, face = style["color"], style["marker"], style["markerfacecolor"]
            x = own.n_images * 2.0 ** (_APART * (place - (count - 1) / 2))
            centre = np.array([_drawn(e, e.value) for e in own.estimates])
            label = own.line.label(both_arms(lines))
            measured = np.where([np.isfinite(e.value) for e in own.estimates], centre, np.nan)
            ax.plot(x, measured, color=colour, linestyle=style["linestyle"], lw=0.9, alpha=0.6, zorder=2)
            ax.plot([], [], color=colour, linestyle=style["linestyle"], marker=marker, mfc=face, label=label)
            for at, mid, e in zip(x, centre, own.estimates, strict=True):
                if np.isnan(mid):
                    continue
                up, down = np.isposinf(e.value), np.isneginf(e.value)
                mark = {"marker": "^" if up else "v", "mfc": "white", "ms": 5} if up or down else {"marker": marker}
                ax.plot([at], [mid], **{"color": colour, "mfc": face, "ls": "none", "zorder": 3} | mark)
                if np.isnan(e.low) or e.low == e.high:
                    continue
                low, high = _drawn(e, e.low), _drawn(e, e.high)
                ax.plot([at, at], [low, high], color=colour, lw=1.1, zorder=2.5)
                for end, value, caret in ((low, e.low, "v"), (high, e.high, "^")):
                    if np.isinf(value) and end != mid:
                        ax.plot([at], [end], color=colour, marker=caret, ms=2.6, ls="none", zorder=2.6)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        image_ticks(ax, images if len(images) <= 12 else powers_of_two(images[0], images[-1]), inches)
        ax.axhline(1, color="black", lw=0.8, zorder=1.5)
        fewest, most = panel.family[0].real
        edges = np.array([images[0] / 2, images[-1] * 2])
        shade: dict[str, Any] = {"color": "0.5", "alpha": 0.13, "lw": 0, "zorder": 0.5}
        ax.fill_between(edges, most / edges, 2.0**40, **shade)
        ax.fill_between(edges, 2.0**-40, fewest / edges, **shade)
        ax.set_xlim(images[0] / 2**0.4, images[-1] * 2**0.4)
        name = family_name([own.line for own in panel.family])
        head = f"{panel.head}\n" if len({p.head for p in self.panels}) > 1 else ""
        where = f" on '{panel.test}'" if len({p.test for p in self.panels}) > 1 else ""
        heading = textwrap.fill(f"{METRICS[panel.metric]}{where}", int((inches - 0.3) / 0.054))
        ax.set_title(f"{head}{heading}\n{name}", loc="left", color="0.35")
        if self._lowest(ax):
            ax.set_xlabel("Images used (labels)")
        if self._leftmost(ax):
            ax.set_ylabel("Data multiplier")

    def _finish(self, panel: MultiplierPanel, ax: Axes) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        every = [e for p in self.panels for own in p.family for e in own.estimates]
        drawn = [_drawn(e, value) for e in every for value in (e.value, e.low, e.high)]
        low, high = min([0.5, *(v for v in drawn if v > 0)]), max([2.0, *(v for v in drawn if v > 0)])
        ax.set_ylim(low / 2**0.4, high * 2**0.4)
        ticks = powers_of_two(low, high)
        ax.yaxis.set_major_locator(FixedLocator(_around_one(ticks)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}×" if v >= 1 else f"1/{1 / v:,.0f}×"))


def multiplier_panels(frame: pd.DataFrame, panels: Sequence[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """(test, metric) of the multiplier: those of `panels` that can be resampled.

    With None the default panels of test sets with pairs, or of all where none has pairs.

    Raises:
        DataError: an unknown test set or metric, or none that can be resampled.
    """
    whole = whole_slices(frame)
    chosen = _resampled(check_panels(whole, panels if panels is not None else default_panels(whole)))
    if not chosen:
        raise DataError(
            f"The data multiplier needs a metric that can be resampled: {', '.join(BOOTSTRAP_METRICS)}. "
            "Name one in the panels."
        )
    paired = set(whole.loc[whole["n_pairs"] > 0, "test"])
    return chosen if panels is not None else [panel for panel in chosen if panel[0] in paired] or chosen


def check_multiplier(frame: pd.DataFrame) -> None:
    """Raises DataError where a curve has no data multiplier: too few budgets of real data alone, or nothing else."""
    whole = whole_slices(frame)
    budgets = sorted(whole.loc[whole["control"] == "none", "budget"].unique())
    others = len(lines_of(whole)) - bool(budgets)
    if len(budgets) < 2 or not others:
        raise DataError(
            "The data multiplier compares other lines with real data alone at two budgets or more; the results have "
            f"real data alone at {', '.join(f'{b:,}' for b in budgets) or 'no budget'}, and {others} other lines. "
            "Run the curve with 0 in grid.ratios and several grid.budgets."
        )


def _resampled(panels: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(test, metric) for test, metric in panels if metric in BOOTSTRAP_METRICS]


def _around_one(ticks: list[float]) -> list[float]:
    """Every second or third of many ticks, with 1 among them."""
    step = -(-len(ticks) // 9)
    return [tick for tick in ticks if int(np.log2(tick)) % step == 0]


def _censored(estimate: Estimate) -> bool:
    return any(np.isinf(v) for v in (estimate.value, estimate.low, estimate.high))


def _drawn(estimate: Estimate, value: float) -> float:
    """Where `value` stands on the axis: a censored one at its bound."""
    if np.isnan(value):
        return float("nan")
    return float(np.clip(value, estimate.floor, estimate.ceiling))
