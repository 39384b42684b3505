"""What a curve says first: how many images a target takes, and how many real images a pair is worth."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np

from guardtrain.curves.bootstrap import PointReplicates
from guardtrain.curves.comparisons import best_real_heads
from guardtrain.curves.efficiency import (
    Estimate,
    LineReplicates,
    area,
    budget_needed,
    isotonic,
    pair_worth,
    rises,
)
from guardtrain.curves.results import LOWER_IS_BETTER, METRICS
from guardtrain.curves.statistics import Line, lines_of

LEVELS = (0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)
_SURE = 0.05  # of replicates without a value, above which none is told


@dataclass(frozen=True)
class Headline:
    """The first answers of a curve, by one metric on one test set.

    Args:
        test, metric: where.
        head: whose mixtures these are: of several, the one that does best with pairs on average over log2 n.
        heads: how many heads there are; with several, real data alone is the best of them at each budget.
        target: a value of the metric that the best mixture reaches within the budgets, and real data alone not at once.
        needed: images that each mixture needs for it, and real data alone, which stands last.
        n: the budget at which pairs are valued.
        worth: real images that one pair is worth there.
    """

    test: str
    metric: str
    head: str
    heads: int
    target: float
    needed: tuple[tuple[Line, Estimate], ...]
    n: int
    worth: tuple[tuple[Line, Estimate], ...]

    def text(self, width: int = 100) -> str:
        """Two sentences, folded."""
        real = "real images alone" + (" (the best head at each n)" if self.heads > 1 else "")
        whose = f", {self.head} head" if self.heads > 1 else ""
        *mixed, (_, alone) = self.needed
        parts = [f"{images_text(estimate)} images with {line.label()}" for line, estimate in mixed]
        level = f"{self.target:g}".removeprefix("0")
        out = [
            f"{METRICS[self.metric]} {level} on '{self.test}'{whose}: {', '.join(parts)}; {images_text(alone)} with "
            f"{real}."
        ]
        if self.worth:
            each = [f"{one.text(0 if abs(one.value) >= 10 else 1)} with {line.label()}" for line, one in self.worth]
            out.append(f"One pair is worth, in real images at n = {self.n:,}{whose}: {', '.join(each)}.")
        return "\n".join(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in out)


def headline(boot: PointReplicates) -> Headline | None:
    """The first answers; None where real data alone gets no better by more than chance, or there are no pairs.

    Args:
        boot: of a curve on one test set, by a metric that is a share.
    """
    lines = lines_of(boot.points)
    pairs = [line for line in lines if line.control == "paired"]
    if not pairs or lines[0].control != "none" or boot.metric in LOWER_IS_BETTER:
        return None
    real = best_real_line(boot)
    if not rises(real) or len(real.budgets) < 2:
        return None
    every = {
        head: [(line, LineReplicates.of(boot, line, head)) for line in pairs if line in boot.lines(head)]
        for head in boot.heads
    }
    every = {head: own for head, own in every.items() if own and all(len(part.budgets) > 1 for _, part in own)}
    if not every:
        return None
    head = max(every, key=lambda name: max(area(part).value for _, part in every[name]))
    own = every[head]
    reached = max(float(isotonic(part.mean[:, None], part.increasing)[-1, 0]) for _, part in own)
    target = next((level for level in LEVELS if level <= reached and level > real.mean[0]), None)
    if target is None:
        return None
    needed = [(line, budget_needed(part, target)) for line, part in own] + [(lines[0], budget_needed(real, target))]
    budgets = own[0][1].budgets
    at = min(len(budgets) - 1, max(0, len(budgets) // 2 - 2) + 1)
    worth = []
    for line, part in own:
        if budgets[at] in part.budgets:
            estimate = pair_worth(real, part)[int(np.flatnonzero(part.budgets == budgets[at])[0])]
            worth += [(line, estimate)] if estimate.undefined <= _SURE else []
    return Headline(
        boot.test, boot.metric, head, len(boot.heads), target, tuple(needed), int(budgets[at]), tuple(worth)
    )


def best_real_line(boot: PointReplicates) -> LineReplicates:
    """Real data alone with the head that does best at each budget; of one head, its line."""
    return LineReplicates.of_rows(boot, list(best_real_heads(boot).values()))


def images_text(estimate: Estimate) -> str:
    """A number of images with its interval: "210 [150, 330]", "> 2,048" where more were never tried.

    >>> images_text(Estimate(float("inf"), 1500.0, float("inf"), 16, 2048))
    '> 2,048 [1,500, > 2,048]'
    """
    return estimate.text(0).replace("≥", ">")
