"""Where the gain comes from, as a figure: a panel a mixture, its parts over the budget, intervals that hold at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from guardtrain.curves.decomposition import GAIN, Decomposition, Part, check_decomposed
from guardtrain.curves.display_base import Display
from guardtrain.curves.display_style import HeadLine, image_ticks, look
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import Line, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_APART = 0.1  # in log2 of images: how far lines stand apart at one budget


@dataclass
class DecompositionDisplay(Display):
    """The parts of each mixture's gain along the curve, drawn by `plot` after `of`.

    Args:
        panels: what is drawn, in order: a mixture each.

    >>> # DecompositionDisplay.of(decompositions(boot)).save("runs/scenes")
    """

    panels: Sequence[Decomposition]

    name: ClassVar[str] = "decomposition"
    shared: ClassVar[bool] = True

    @classmethod
    def of(
        cls, found: Sequence[Decomposition], *, title: str | None = None, width: float | None = None
    ) -> DecompositionDisplay:
        """The display of what `guardtrain.curves.decomposition.decompositions` found.

        Raises:
            DataError: nothing was taken apart.
        """
        check_decomposed(found)
        return cls(list(found), title=title, width=width)

    def caption(self) -> str:
        """Say what lines and bars are."""
        first = self.panels[0]
        text = (
            f"{METRICS[first.metric]} on '{first.test}'. Black: what pairs gain over real data alone; the parts add up "
            "to it"
        )
        text += " (but for the loss)" if any(part.name == "loss" for one in self.panels for part in one.parts) else ""
        if np.isfinite(first.gain.width).any():
            text += ". Bars: 95 % intervals that hold for all lines and points of a head at once"
        return " ".join([text + ".", *self.notes])

    def alt(self) -> str:
        """Each panel in a sentence with the averages of its parts."""
        told = []
        for one in self.panels:
            parts = ", ".join(f"{part.name} {number_text(part.average)}" for part in (one.gain, *one.parts))
            told.append(f"{one.head}, {one.line.label()}, average over the budgets: {parts}.")
        return f"Line chart in {len(self.panels)} panels: parts of a gain over the budget n. " + " ".join(told)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(part.name for one in self.panels for part in one.parts))

    def _line(self, name: str) -> HeadLine:
        place = self._names().index(name) if name != GAIN else -1
        return HeadLine("replace", "none", 0.0, name, place)

    def _lines(self) -> list[Line]:
        return [self._line(GAIN), *(self._line(name) for name in self._names())]

    def _beside(self) -> int:
        return min(3, len({one.line for one in self.panels}))

    def _draw(self, panel: Decomposition, ax: Axes, lines: list[Line], inches: float) -> None:
        ax.axhline(0, color="0.4", lw=0.8, zorder=1)
        whole: list[Part] = [panel.gain, *panel.parts]
        for place, part in enumerate(whole):
            style = {"color": "black", "marker": "x"} if part.name == GAIN else look(self._line(part.name), lines)
            apart = 2.0 ** (_APART * (place - (len(whole) - 1) / 2))
            x = np.array(part.budgets, dtype=np.float64) * apart
            ax.plot(x, part.difference, label=part.name, zorder=3, **style)
            ax.vlines(x, part.difference - part.width, part.difference + part.width, color=style["color"], lw=0.9)
        ax.set_xscale("log", base=2)
        image_ticks(ax, sorted({n for part in whole for n in part.budgets}), inches)
        head = f"{panel.head}\n" if len({one.head for one in self.panels}) > 1 else ""
        ax.set_title(f"{head}{panel.line.label()}", loc="left", color="0.35")
        if self._lowest(ax):
            ax.set_xlabel("Budget n (labelled images)")
        if self._leftmost(ax):
            ax.set_ylabel(f"Change in {METRICS[panel.metric].removesuffix(' (lower is better)')}")

    def _finish(self, panel: Decomposition, ax: Axes) -> None:
        """All means are shown, and bars as far as they are no longer than the range of means."""
        means = np.concatenate([part.difference for one in self.panels for part in (one.gain, *one.parts)])
        ends = [
            part.difference + sign * np.nan_to_num(part.width)
            for one in self.panels
            for part in (one.gain, *one.parts)
            for sign in (-1, 1)
        ]
        span = max(float(np.ptp(means)), 0.02)
        low = max(float(np.min(ends)), float(means.min()) - span / 2)
        high = min(float(np.max(ends)), float(means.max()) + span / 2)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
