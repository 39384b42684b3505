"""Where real data alone never does as well as pairs within the budgets tried: what a power law says it would need.

These are extrapolations (`guardtrain.curves.extrapolation`), never measurements: they stand apart from the censored data
multipliers ("≥ 16") that they go beyond, and say in each line what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """What real data alone would need to do as well as a line at the first budget where it never did.

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
            f"{self.line.label()} with {self.n:,} images ({METRICS[self.metric]} {number_text(self.level)}); real only "
            f"would need {self.needed.text()}"
        )


def outlooks(boot: PointReplicates) -> list[Outlook]:
    """One for each head and line of pairs whose data multiplier is censored above, at the first such budget.

    Nothing where there is no real data alone, or where its line cannot hold a power law: see
    `guardtrain.curves.extrapolation.refusal`, and `refusals` for the reason.
    """
    return [made for made in _all(boot) if not made.needed.refused]


def refusals(boot: PointReplicates) -> dict[str, str]:
    """Heads whose real-data line was not extrapolated though pairs went beyond it, and why not."""
    return {made.head: made.needed.refused for made in _all(boot) if made.needed.refused}


def outlook_lines(boot: PointReplicates) -> list[str]:
    """All that `outlooks` and `refusals` say, a line each; a head is named where there are several."""
    several = boot.points["head"].nunique() > 1
    made = _all(boot)
    lines = [f"{o.head}: " * several + o.text() for o in made if not o.needed.refused]
    refused = {o.head: o.needed.refused for o in made if o.needed.refused}
    return [*lines, *(f"{head}: " * several + f"real only, no: {reason}" for head, reason in refused.items())]


def _all(boot: PointReplicates) -> list[Outlook]:
    lines = lines_of(boot.points)
    real = next((line for line in lines if line.control == "none"), None)
    out: list[Outlook] = []
    for head in dict.fromkeys(boot.points["head"]):
        own = lines_of(boot.points[boot.points["head"] == head])
        if real is None or real not in own:
            continue
        baseline = LineReplicates.of(boot, real, head)
        for line in (line for line in own if line.control == "paired"):
            made = _outlook(boot, str(head), line, baseline)
            out += [] if made is None else [made]
    return out


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


def any_censored(boots: Sequence[PointReplicates]) -> bool:
    """Whether there is anything to extrapolate."""
    return any(_all(boot) for boot in boots)
