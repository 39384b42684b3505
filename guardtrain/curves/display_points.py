"""Reliability diagram and ROC curve at chosen points of a curve, from the kept test scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from guardtrain.curves.display_base import Display
from guardtrain.curves.display_style import HeadLine, both_arms, families_of, family_name, look, per_row
from guardtrain.curves.point_scores import N_BINS, PointChoice, PointScores, over_rows, point_scores, reliability, roc
from guardtrain.curves.scores import ScoresFolder
from guardtrain.curves.statistics import NO_INTERVAL, Line, number_text, seeds_text
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_NAMES = {"auroc": "AUROC", "ece": "calibration error", "brier": "Brier"}
_SHORT = {"auroc": "AUROC", "ece": "ECE", "brier": "Brier"}
_LEGEND: Any = {
    "fontsize": 6,
    "frameon": False,
    "borderpad": 0,
    "borderaxespad": 0.3,
    "handlelength": 2.2,
    "labelspacing": 0.35,
}
_RATES = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class PointsPanel:
    """One panel: the points of one arm and ratio, pairs and controls, beside real data alone; or of all heads."""

    head: str
    test: str
    points: tuple[PointScores, ...]


@dataclass
class _PointsDisplay(Display):
    """Base of two displays: a panel a test set, arm and ratio; values and intervals in its legend.

    Args:
        panels: what is drawn, in order.
    """

    panels: list[PointsPanel]

    overlaid: ClassVar[bool] = False  # whether heads that have real data alone are lines of one panel
    shared: ClassVar[bool] = True
    legend: ClassVar[bool] = False
    told: ClassVar[tuple[str, ...]]

    @classmethod
    def from_results(
        cls,
        frame: pd.DataFrame,
        scores: ScoresFolder | str | Path,
        point: PointChoice | None = None,
        tests: Iterable[str] | None = None,
        *,
        title: str | None = None,
        width: float | None = None,
    ) -> Self:
        """The test scores of the chosen points, ready to plot.

        Args:
            frame: a results table.
            scores: the scores folder beside it.
            point: which points; None for each line at the largest budget.
            tests: names of test sets; None for all.
            title, width: see `Display`.

        Raises:
            DataError: as of `guardtrain.curves.point_scores.point_scores`.
        """
        points = point_scores(frame, scores, point, tests)
        return cls.from_points(points, title=title, width=width)

    @classmethod
    def from_points(
        cls,
        points: list[PointScores],
        *,
        title: str | None = None,
        width: float | None = None,
    ) -> Self:
        """The display of points that were read; a test set with one class is left out with a note.

        Raises:
            DataError: nothing is left to draw.
        """
        made, notes = [], []
        heads = list(dict.fromkeys(p.head for p in points))
        if cls.overlaid and len(heads) > 1 and {p.line.control for p in points} == {"none"}:
            what = f"{len(heads)} heads"
            points = [
                replace(p, head=what, line=HeadLine(p.line.arm, "none", p.line.ratio, p.head, heads.index(p.head)))
                for p in points
            ]
            heads = [what]
        for test, head in dict.fromkeys((p.test, p.head) for p in points):
            own = {p.line: p for p in points if (p.test, p.head) == (test, head)}
            labels = next(iter(own.values())).labels
            if labels.min(initial=1) == labels.max(initial=0):
                notes.append(f"Test set '{test}' has images of one class: left out.")
                continue
            alone = sorted((line for line in own if line.control == "none"), key=lambda line: line.order)
            families = families_of(sorted(own, key=lambda line: line.order)) or [[]]
            for family in families:
                made.append(PointsPanel(head, test, tuple(own[line] for line in [*alone, *family])))
        if not made:
            raise DataError(f"Nothing to draw. {' '.join(notes)}".rstrip())
        made.sort(key=lambda panel: heads.index(panel.head))  # a head's panels stand together
        return cls(made, title=title, notes=tuple(dict.fromkeys(notes)), width=width)

    @property
    @abstractmethod
    def _kind(self) -> str:
        """Return what the figure is called in words."""

    def caption(self) -> str:
        """Say what lines, bands and values are, over how many seeds."""
        counts = [len(p.scores) for panel in self.panels for p in panel.points]
        names = " and ".join(_NAMES[name] for name in self.told if name not in NO_INTERVAL)
        if max(counts) < 2:
            every = " and ".join(_NAMES[name] for name in self.told)
            return " ".join([f"One seed: no bands. In the legend: {every}.", *self.notes])
        return " ".join(
            [
                f"Lines: means over {seeds_text(counts)}. Bands, and ± of {names}: 95 % Student t intervals "
                "over seeds (the test sets are fixed), for each point by itself.",
                *self.notes,
            ]
        )

    def alt(self) -> str:
        """Each panel in a sentence with the values of its legend."""
        which = both_arms(self._lines())
        sentences = []
        for panel in self.panels:
            parts = [f"{p.line.label(which)} {self._told(p)}" for p in panel.points]
            sentences.append(f"Test set '{panel.test}', n = {panel.points[0].budget:,}: {'; '.join(parts)}.")
        return f"{self._kind} in {len(self.panels)} panels. " + " ".join(sentences)

    def _several(self) -> bool:
        return len({panel.head for panel in self.panels}) > 1

    def _told(self, point: PointScores) -> str:
        texts = []
        for name in self.told:
            mean, half = point.metrics[name]
            spread = f"±{number_text(half)}" if np.isfinite(half) else ""
            if name in NO_INTERVAL:
                spread = f" (chance {number_text(point.chance)})"
            texts.append(f"{_SHORT[name]} {number_text(mean)}{spread}")
        return ", ".join(texts)

    def _beside(self) -> int:
        heads, tests = ({getattr(p, name) for p in self.panels} for name in ("head", "test"))
        rows = len({(p.head, p.test) for p in self.panels})
        each = len(self.panels) // rows
        if each == 1 and len(heads) > 1 and len(tests) in (2, 3) and rows == len(heads) * len(tests):
            return len(tests)
        return each if each in (2, 3) and each * rows == len(self.panels) else per_row(len(self.panels))

    def _room(self) -> float:
        return 0.5 + 0.13 * self._several()

    def _lines(self) -> list[Line]:
        found = {p.line for panel in self.panels for p in panel.points}
        return sorted(found, key=lambda line: line.order)

    def _draw(self, panel: PointsPanel, ax: Axes, lines: list[Line], inches: float) -> None:
        from matplotlib.ticker import FixedLocator

        which = both_arms(lines)
        for point in panel.points:
            style = look(point.line, lines)
            between = "  " if isinstance(point.line, HeadLine) else "\n"
            label = f"{point.line.label(which)}{between}{self._told(point).replace(', ', '  ')}"
            self._line(point, ax, style, label)
        ax.set_xlim(-0.02, 1.02)  # a perfect curve runs along the edge, and is to be seen
        ax.set_ylim(-0.02, 1.02)
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.plot([0, 1], [0, 1], color="0.55", lw=0.8, ls=":", zorder=1)
        family = [p.line for p in panel.points if p.line.control != "none"]
        head = f"{panel.head}\n" if self._several() else ""
        what = family_name(family) if family else "real only"
        if isinstance(panel.points[0].line, HeadLine):
            what = panel.head
        budgets = {p.budget for p in panel.points}
        self._legend(ax, f"'{panel.test}', n = {max(budgets):,}\n{head}{what}")

    @abstractmethod
    def _line(self, point: PointScores, ax: Axes, style: dict[str, Any], label: str) -> None: ...

    @abstractmethod
    def _legend(self, ax: Axes, heading: str) -> None: ...


@dataclass
class ReliabilityDisplay(_PointsDisplay):
    """A reliability diagram: how often images are unsafe among those given each probability.

    Args:
        panels: what is drawn, in order.

    >>> # ReliabilityDisplay.from_results(frame, "out/scores", PointChoice(budget=512, ratio=0.5)).plot()
    """

    name: ClassVar[str] = "reliability"
    told: ClassVar[tuple[str, ...]] = ("ece", "brier")

    def _room(self) -> float:
        return 0.6 + 0.13 * self._several() + 0.24 * max(len(panel.points) for panel in self.panels)

    @property
    def _kind(self) -> str:
        return "Reliability diagrams, share unsafe over mean probability,"

    def caption(self) -> str:
        """Say what is said for every display, and what the marks' areas are."""
        return (
            f"{super().caption()} {N_BINS} equally wide bins, those of the calibration error (ECE), which has no "
            "interval but, in brackets, what right probabilities would show by chance. The area of a mark is the share "
            "of images in its bin. On the dotted line probabilities are right."
        )

    def _line(self, point: PointScores, ax: Axes, style: dict[str, Any], label: str) -> None:
        predicted, unsafe, share = reliability(point.scores.probabilities, point.labels)
        x, _ = over_rows(predicted)
        y, half = over_rows(unsafe)
        filled = np.isfinite(x)
        x, y, half, size = x[filled], y[filled], half[filled], share.mean(axis=0)[filled]
        ax.plot([], [], label=label, **style | {"markersize": 3.5, "linewidth": 1.1})
        ax.plot(x, y, color=style["color"], ls=style["linestyle"], lw=1.1, zorder=2)
        colour, face = style["color"], style.get("markerfacecolor", style["color"])
        ax.scatter(
            x, y, s=2 + 90 * size, marker=style["marker"], color=colour, fc=face, lw=0.8, zorder=3, clip_on=False
        )
        low, high = np.clip(y - half, 0, 1), np.clip(y + half, 0, 1)
        ax.fill_between(x, low, high, color=style["color"], alpha=0.14, lw=0)
        if self._lowest(ax):
            ax.set_xlabel("Mean probability of unsafe")
        if self._leftmost(ax):
            ax.set_ylabel("Share of images unsafe")

    def _legend(self, ax: Axes, heading: str) -> None:
        # above the panel: inside it the curves may run anywhere
        made = ax.legend(loc="lower left", bbox_to_anchor=(0, 1.03), title=heading, alignment="left", **_LEGEND)
        made.get_title().set_color("0.35")


@dataclass
class RocDisplay(_PointsDisplay):
    """ROC curves, averaged over seeds at each false-positive rate.

    Args:
        panels: what is drawn, in order.

    >>> # RocDisplay.from_results(frame, "out/scores").save("out", formats=["pdf"])
    """

    name: ClassVar[str] = "roc"
    told: ClassVar[tuple[str, ...]] = ("auroc",)
    overlaid: ClassVar[bool] = True

    @property
    def _kind(self) -> str:
        return "ROC curves, true-positive over false-positive rate,"

    def caption(self) -> str:
        """Say what is said for every display, and how seeds are averaged."""
        return f"{super().caption()} Curves are averaged at each false-positive rate; the dotted line is chance."

    def _line(self, point: PointScores, ax: Axes, style: dict[str, Any], label: str) -> None:
        mean, half = over_rows(roc(point.scores.ranked, point.labels, _RATES))
        ax.plot(_RATES, mean, label=label, color=style["color"], ls=style["linestyle"], lw=1.1, zorder=2)
        low, high = np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
        ax.fill_between(_RATES, low, high, color=style["color"], alpha=0.14, lw=0)
        if self._lowest(ax):
            ax.set_xlabel("False-positive rate")
        if self._leftmost(ax):
            ax.set_ylabel("True-positive rate")

    def _legend(self, ax: Axes, heading: str) -> None:
        ax.set_title(heading, loc="left", color="0.35")
        ax.legend(loc="lower right", **_LEGEND)
