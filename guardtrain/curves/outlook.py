"""Where real data alone never does as well as pairs within the budgets tried: what a power law says it would need.

These are extrapolations (`guardtrain.curves.extrapolation`), never measurements: they stand apart from the censored
data multipliers ("≥ 16") that they go beyond, and say in each line what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardtrain.curves.bootstrap import PointReplicates
from guardtrain.curves.efficiency import LineReplicates, data_multiplier, isotonic
from guardtrain.curves.extrapolation import Extrapolation, extrapolate
from guardtrain.curves.results import METRICS
from guardtrain.curves.statistics import Line, lines_of, number_text
from guardtrain.errors import DataError

HEADING = "Extrapolated, not measured"


@dataclass(frozen=True)
class Outlook:
    """The real images needed to do as well as a line does at the first budget where real data never did.

    Args:
        head, test, metric: where.
        line: pairs at some ratio.
        n: the images that the line used there.
        level: its mean there, which is taken as given: the interval does not know that it, too, was measured.
        needed: images of real data alone.
    """

    head: str
    test: str
    metric: str
    line: Line
    n: int
    level: float
    needed: Extrapolation

    def text(self) -> str:
        """A sentence: who, what would be needed, and how that is known."""
        return (
            f"To do as well as {self.line.label()} with {self.n:,} images ({METRICS[self.metric]} "
            f"{number_text(self.level)}), real only would need {self.needed.text()}."
        )


def outlooks(boot: PointReplicates) -> list[Outlook]:
    """One for each head and line of pairs whose data multiplier is censored above, at the first such budget.

    Where the line of real data alone cannot hold a power law, `needed.refused` says why.
    """
    lines = lines_of(boot.points)
    real = next((line for line in lines if line.control == "none"), None)
    out: list[Outlook] = []
    for head in boot.heads:
        own = boot.lines(head)
        if real is None or real not in own:
            continue
        baseline = LineReplicates.of(boot, real, head)
        for line in (line for line in own if line.control == "paired"):
            made = _outlook(boot, head, line, baseline)
            out += [] if made is None else [made]
    return out


def outlook_lines(boot: PointReplicates) -> list[str]:
    """Tell what `outlooks` says, a line each, and why the rest was not extrapolated; none where nothing is censored.

    Heads are named where there are several.
    """
    several = boot.points["head"].nunique() > 1
    made = outlooks(boot)
    refused: dict[str, dict[str, None]] = {}
    for one in made:
        if one.needed.refused:
            refused.setdefault(one.needed.refused, {})[one.head] = None
    told = [(f"{one.head}: " if several else "") + one.text() for one in made if not one.needed.refused]
    for reason, heads in refused.items():
        whose = f" ({', '.join(heads)})" if several else ""
        told.append(f"Real only{whose} is not extrapolated: {reason}.")
    return told


def _outlook(boot: PointReplicates, head: str, line: Line, baseline: LineReplicates) -> Outlook | None:
    part = LineReplicates.of(boot, line, head)
    beyond = [k for k, estimate in enumerate(data_multiplier(baseline, part)) if np.isposinf(estimate.value)]
    if not beyond:
        return None
    level = float(isotonic(part.mean[:, None], part.increasing)[beyond[0], 0])
    try:
        needed = extrapolate(baseline, target=level)
    except DataError:  # a single point of real data alone reached it, though its monotone curve did not
        return None
    return Outlook(head, boot.test, boot.metric, line, round(part.n_images[beyond[0]]), level, needed)
