"""Pairs against real data alone, against their controls and against the best real-only head: along the whole curve.

What is asked of several budgets and ratios is one family: its intervals hold for all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from guardtrain.curves.families import family
from guardtrain.curves.results import CONTROL_NAMES, LOWER_IS_BETTER
from guardtrain.curves.statistics import (
    CONFIDENCE,
    NO_INTERVAL,
    Line,
    default_panels,
    number_text,
    whole_slices,
)

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates

BEST = "best"  # what stands for the best real-only head where a control's name stands
LEAST = 5e-4  # an end of an interval that is printed as zero is zero


@dataclass(frozen=True)
class Comparison:
    """One line minus another at the K budgets that both have.

    Args:
        head, test, metric: where.
        line: what is compared.
        other: with what; None for the best real-only head at each budget.
        budgets: (K,) ascending.
        difference, low, high: (K,) of the metric; the ends hold for all of the family at once, and are NaN where one
            seed leaves no interval.
        detectable: (K,) the smallest true differences that would be shown in 80 of 100 curves; NaN as they are.
        asked: how many differences are in the family.
        heads: (K,) the best real-only heads, where those are compared with; else empty.
    """

    head: str
    test: str
    metric: str
    line: Line
    other: Line | None
    budgets: tuple[int, ...]
    difference: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    detectable: tuple[float, ...]
    asked: int
    heads: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Return what it is compared with: `none`, a control, or `BEST`."""
        return BEST if self.other is None else self.other.control

    def shown(self, better: bool) -> list[int]:
        """Places of the budgets at which the line is better (or worse), as the interval is printed."""
        up = better != (self.metric in LOWER_IS_BETTER)
        ends = enumerate(zip(self.low, self.high, strict=True))
        return [k for k, (low, high) in ends if (low > LEAST if up else high < -LEAST)]

    @property
    def better(self) -> bool | None:
        """Whether the line is better somewhere and worse nowhere, or the other way round; None where neither."""
        more, less = self.shown(True), self.shown(False)
        return None if bool(more) == bool(less) else bool(more)

    def at(self, k: int) -> str:
        """The difference at one budget and its interval: "+.101 [+.093, +.109]"."""
        if np.isnan(self.low[k]):
            return f"{signed(self.difference[k])} (no interval)"
        return f"{signed(self.difference[k])} [{signed(self.low[k])}, {signed(self.high[k])}]"

    def where(self, places: Sequence[int]) -> str:
        """The budgets at some places, in words: "at every n", "at n = 64 to 512 and 2,048"."""
        if len(places) == len(self.budgets):
            return "at every n" if len(self.budgets) > 1 else f"at n = {self.budgets[0]:,}"
        runs: list[list[int]] = []
        for k in places:
            runs = [*runs[:-1], [*runs[-1], k]] if runs and k == runs[-1][-1] + 1 else [*runs, [k]]
        texts = [
            f"{self.budgets[run[0]]:,}" + (f" to {self.budgets[run[-1]]:,}" if len(run) > 1 else "") for run in runs
        ]
        return "at n = " + " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))

    def most(self, places: Sequence[int]) -> str:
        """The largest of the differences at some places: "+.101 [+.093, +.109] at n = 256"."""
        k = max(places, key=lambda place: abs(self.difference[place]))
        return f"{self.at(k)}" + (f" at n = {self.budgets[k]:,}" if len(self.budgets) > 1 else "")

    def missed(self) -> str:
        """Return what would be shown: "≥ .031 would be, at n = 1,024"; "" for one seed."""
        if np.isnan(self.detectable).all():
            return ""
        k = int(np.nanargmin(self.detectable))
        at = f", at n = {self.budgets[k]:,}" if len(self.budgets) > 1 else ""
        return f"≥ {number_text(self.detectable[k])} would be{at}"

    def told(self) -> str:
        """Say what the intervals allow to say of it, and where."""
        k = len(self.budgets) - 1
        if np.isnan(self.low).all():
            return f"{self.at(k)}" + (f" at n = {self.budgets[k]:,}" if k else "")
        parts = []
        for word, places in (("better", self.shown(True)), ("worse", self.shown(False))):
            if len(places) == 1:
                parts.append(f"{word} {self.where(places)}: {self.at(places[0])}")
            elif places:
                parts.append(f"{word} {self.where(places)}, most {self.most(places)}")
        return "; ".join(parts) or f"no difference shown; {self.missed()}"


def comparisons(
    frame: pd.DataFrame,
    panels: Sequence[tuple[str, str]] | None = None,
    boots: Mapping[tuple[str, str], PointReplicates] | None = None,
) -> list[Comparison]:
    """Pairs against real data alone, against each of their controls and against the best real-only head.

    All budgets and ratios of a head with one thing that it is compared with are a family. With several heads, the best
    real-only head is the one whose mean is highest at a budget, on the same test images: that its mean is the highest
    of several flatters it, so the gain over it is understated rather than overstated.

    Args:
        frame: a results table.
        panels: (test set, metric) pairs, known to be there; None for
            `guardtrain.curves.statistics.default_panels`.
        boots: bootstraps by (test, metric): then intervals are over seeds and test groups. Without one they are
            Student's t over seeds, matched by seed.

    Raises:
        DataError: an empty table, or points that mix experiments.
    """
    from guardtrain.curves.bootstrap import seed_replicates

    whole = whole_slices(frame)
    out: list[Comparison] = []
    for test, metric in panels if panels is not None else default_panels(whole):
        rows = whole[(whole["test"] == test) & whole[metric].notna()]
        if rows.empty:
            continue
        boot = (boots or {}).get((test, metric)) or seed_replicates(rows, test, metric, replicates=1)
        for head in boot.heads:
            for kind in ("none", BEST, *CONTROL_NAMES):
                out += _family(boot, head, sides_of(boot, head, kind))
    return out


class Side(NamedTuple):
    """A head's line of pairs and what it is compared with, at the budgets that both have: rows of `boot.points`."""

    line: Line
    other: Line | None
    budgets: list[int]
    ours: list[int]
    theirs: list[int]


def sides_of(boot: PointReplicates, head: str, kind: str) -> list[Side]:
    """Each line of pairs of a head with what of one kind it is compared with; those without a common budget left out.

    Args:
        boot: of a curve on one test set.
        head: which.
        kind: `none`, a control, or `BEST`: the best real-only head at each budget, where there are several heads.
    """
    lines = boot.lines(head)
    best = best_real_heads(boot) if kind == BEST and len(boot.heads) > 1 else {}
    sides = []
    for line in (line for line in lines if line.control == "paired"):
        others: list[Line | None] = [other for other in lines if _matched(line, other, kind)]
        for other in [None] if best else others:
            a, b = boot.rows(head, line), best if other is None else boot.rows(head, other)
            if budgets := [n for n in a if n in b]:
                sides.append(Side(line, other, budgets, [a[n] for n in budgets], [b[n] for n in budgets]))
    return sides


def best_real_heads(boot: PointReplicates) -> dict[int, int]:
    """The row of `boot.points` of the best real-only head at each budget."""
    real = boot.points[(boot.points["control"] == "none") & boot.points["mean"].notna()]
    best = real.sort_values("mean", ascending=boot.metric in LOWER_IS_BETTER, kind="stable").drop_duplicates("budget")
    ascending = best.sort_values("budget")
    return dict(zip(ascending["budget"].tolist(), ascending.index.tolist(), strict=True))


def _matched(line: Line, other: Line, kind: str) -> bool:
    return other.control == kind and (kind == "none" or (other.arm, other.ratio) == (line.arm, line.ratio))


def _family(boot: PointReplicates, head: str, sides: Sequence[Side]) -> list[Comparison]:
    """The comparisons of one head with one kind of thing."""
    if not sides:
        return []
    ours, theirs = [row for side in sides for row in side.ours], [row for side in sides for row in side.theirs]
    found = family(boot.by_seed[ours] - boot.by_seed[theirs], CONFIDENCE)
    none = boot.metric in NO_INTERVAL
    half, least = (np.where(none, np.nan, each) for each in (found.together, found.detectable))
    change = found.difference
    out, first = [], 0
    for line, other, budgets, _, others in sides:
        at = np.arange(first, first + len(budgets))
        first += len(budgets)
        at = at[~np.isnan(change[at])]  # a point without a common seed
        if not len(at):
            continue
        start = first - len(budgets)
        kept = [budgets[k - start] for k in at]
        heads = [str(boot.points["head"].iloc[others[k - start]]) for k in at] if other is None else []
        each = ((change - half)[at], (change + half)[at], least[at])
        low, high, detectable = (tuple(map(float, values)) for values in each)
        difference = tuple(map(float, change[at]))
        where = head, boot.test, boot.metric, line, other, tuple(kept)
        out.append(Comparison(*where, difference, low, high, detectable, len(change), tuple(heads)))
    return out


def signed(value: float) -> str:
    """A number with its sign, which a bound that rounds to zero keeps."""
    return ("−" if value < 0 else "+") + number_text(abs(value))
