"""The best share of pairs at each budget as a heat map: ratios over budgets, and what is not told from the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from guardtrain.curves.best_ratios import LEAST_RATIOS, RatioMap, ratios_text
from guardtrain.curves.display_base import Display
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import CONFIDENCE, Line, number_text, seeds_text, share_text
from guardtrain.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = "cividis_r"  # read alike with every kind of colour vision, and in grey
_LEAST_SPAN = 0.02  # of a panel's colours: less is noise, and should look like it


@dataclass
class RatioDisplay(Display):
    """A map of ratios over budgets for each head, arm, test set and metric, drawn by `plot` after `of`.

    Args:
        panels: what is drawn, in order.

    >>> # RatioDisplay.of(ratio_maps(boot)).save("runs/scenes")
    """

    panels: Sequence[RatioMap]

    name: ClassVar[str] = "ratio_map"
    legend: ClassVar[bool] = False

    @classmethod
    def of(cls, found: Sequence[RatioMap], *, title: str | None = None, width: float | None = None) -> RatioDisplay:
        """The display of what `guardtrain.curves.best_ratios.ratio_maps` found, a head's panels together.

        Raises:
            DataError: there is no map.
        """
        if not found:
            raise DataError(f"There is no map of ratios: no metric has values of {LEAST_RATIOS} ratios at a budget.")
        heads = list(dict.fromkeys(one.head for one in found))
        return cls(sorted(found, key=lambda one: heads.index(one.head)), title=title, width=width)

    def caption(self) -> str:
        """Say what colours and marks are."""
        counts = [n for one in self.panels for n in one.n_seeds]
        text = (
            "Colour: how much worse than the best ratio at the same n, means over "
            f"{seeds_text(counts)}; above each column the best one's value. Filled mark: the best ratio. Open marks: "
        )
        if any(one.certain for one in self.panels):
            text += (
                f"those not told from it, for no ratio is shown to be better ({100 * CONFIDENCE:g} % intervals of all "
                "differences of two ratios, which hold for a panel at once). The best of several looks better than it "
                "is."
            )
        else:
            text += "all others, for there are no intervals."
        return " ".join([text, *self.notes])

    def alt(self) -> str:
        """Each panel in a sentence: the best ratio at each budget, its value, and what is not told from it."""
        sentences = []
        for one in self.panels:
            told = "; ".join(
                f"n = {n:,}: ρ = {share_text(one.ratios[one.best[k]])} "
                f"({number_text(one.mean[one.best[k], k])}; not told from it: {ratios_text(one, k)})"
                for k, n in enumerate(one.budgets)
            )
            sentences.append(f"{one.head}, {METRICS[one.metric]} on '{one.test}', {one.arm}: {told}.")
        return f"Heat map of the share of pairs over the budget in {len(self.panels)} panels. " + " ".join(sentences)

    def _lines(self) -> list[Line]:
        return []

    def _beside(self) -> int:
        return min(2, len(self.panels))

    def _alone(self) -> tuple[float, float]:
        return 4.8, 3.2

    def _draw(self, panel: RatioMap, ax: Axes, lines: list[Line], inches: float) -> None:
        lost = panel.lost
        span = max(float(np.nanmax(lost)), _LEAST_SPAN)
        image = ax.imshow(lost, cmap=_COLOURS, vmin=0, vmax=span, origin="lower", aspect="auto")
        for k in range(len(panel.budgets)):
            for r in np.flatnonzero(panel.kept[:, k]):
                is_best = bool(r == panel.best[k])
                # dark on the light end of the colours, where the best and what is like it stand
                ax.plot(k, r, "o", ms=5, mew=0.9, mec=_ink(lost[r, k] / span), mfc="black" if is_best else "none")
        ax.grid(False)
        ax.set_xticks(range(len(panel.budgets)), [f"{n:,}" for n in panel.budgets])
        ax.set_yticks(range(len(panel.ratios)), [share_text(ratio) for ratio in panel.ratios])
        if 0.33 * len(panel.budgets) > inches - 1.1:
            ax.tick_params(axis="x", rotation=45)
        for k in range(len(panel.budgets)):
            value = number_text(panel.mean[panel.best[k], k])
            ax.annotate(value, (k, 1), (0, 2), ("data", "axes fraction"), "offset points", ha="center", fontsize=6)
        ax.set_title("\n".join(self._heading(panel)), loc="left", color="0.35", pad=13)
        ax.set_xlabel("Budget n (labelled images)")
        ax.set_ylabel("Share of pair images ρ")
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(length=2)
        bar.ax.yaxis.set_major_formatter(lambda value, _: number_text(value))

    def _heading(self, panel: RatioMap) -> list[str]:
        """The lines above a panel: what differs between the panels, and the metric."""
        where = f"{METRICS[panel.metric]} on '{panel.test}'"
        parts = [panel.head] * (len({one.head for one in self.panels}) > 1)
        parts += [panel.arm] * (len({one.arm for one in self.panels}) > 1)
        return [*([", ".join(parts)] if parts else []), where]


def _ink(depth: float) -> str:
    """Return the colour of text that is read on a colour of this depth, 0 to 1."""
    return "black" if depth < 0.6 else "white"
