"""Which share of pairs is best at each budget: the ratios that the curve cannot tell from the best.

The best of several looks better than it is, and another draw might choose its neighbour. So a ratio is left out only
where another is shown to be better, by intervals of all differences between two ratios that hold at once: in 95 % of
curves the true best ratio of every budget is among those that stay, whichever looks best (Hsu, "Multiple Comparisons:
Theory and Methods", 1996, chapter 4).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.comparisons import LEAST, signed
from guardtrain.curves.families import Family, family
from guardtrain.curves.results import LOWER_IS_BETTER, METRICS
from guardtrain.curves.statistics import (
    CONFIDENCE,
    NO_INTERVAL,
    Line,
    default_panels,
    number_text,
    share_text,
    whole_slices,
)
from guardtrain.errors import DataError
from guardtrain.words import text_table

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates

LEAST_RATIOS = 4  # at one budget: of fewer a table of lines tells as much
WIDTH = 100


@dataclass(frozen=True)
class RatioMap:
    """R ratios at K budgets, with one head and one arm on one test set.

    Args:
        head, test, metric, arm: where.
        ratios: (R,) ascending; 0 is real data alone.
        budgets: (K,) ascending.
        mean: (R, K) of the metric over seeds; NaN where a budget lacks a ratio.
        half: (R, K) half widths of the means' own intervals.
        best: (K,) which ratio has the best mean.
        kept: (R, K) whether no other ratio is shown to be better.
        gain: (K, 3) the best less real data alone, and the ends of its interval, which holds for all at once; NaN where
            real data alone is the best, or was not run.
        least: (K,) the smallest true difference from the best ratio that would be shown in 80 of 100 curves; NaN where
            there are no intervals.
        n_seeds: of the points, fewest and most.
        asked: how many differences are in the family.
    """

    head: str
    test: str
    metric: str
    arm: str
    ratios: tuple[float, ...]
    budgets: tuple[int, ...]
    mean: np.ndarray
    half: np.ndarray
    best: np.ndarray
    kept: np.ndarray
    gain: np.ndarray
    least: np.ndarray
    n_seeds: tuple[int, int]
    asked: int

    @property
    def lost(self) -> np.ndarray:
        """(R, K) how much worse than the best of its budget each mean is, 0 or more."""
        best = self.mean[self.best, np.arange(len(self.budgets))]
        return np.asarray(np.abs(self.mean - best))

    @property
    def certain(self) -> bool:
        """Whether there are intervals: one seed has none."""
        return bool(np.isfinite(self.least).any())

    def others(self, k: int) -> list[float]:
        """The ratios that are not told from the best at a budget."""
        return [ratio for r, ratio in enumerate(self.ratios) if self.kept[r, k] and r != self.best[k]]


def check_ratios(frame: pd.DataFrame) -> None:
    """Raises DataError where no head has enough ratios of one arm at one budget.

    Args:
        frame: a results table.
    """
    pairs = frame[frame["control"] == "paired"].groupby(["head", "arm", "budget"])["ratio"].nunique()
    real = frame.loc[frame["control"] == "none", ["head", "budget"]].drop_duplicates().assign(real=1)
    both = pairs.reset_index(name="n").merge(real, how="left", on=["head", "budget"])
    most = (both["n"] + both["real"].fillna(0)).max() if len(both) else min(1, len(real))
    if most < LEAST_RATIOS:
        raise DataError(
            f"A map of the best ratio needs {LEAST_RATIOS} ratios or more at a budget, with real data alone as one; "
            f"the results have {int(most)}. Run the curve with more, such as grid.ratios=[0,0.25,0.5,0.75,1], or "
            "experiment=ratio_map."
        )


def maps_of(
    frame: pd.DataFrame, panels: Sequence[tuple[str, str]] | None, boot_of: Callable[[str, str], PointReplicates]
) -> list[RatioMap]:
    """The maps of a results table, panel by panel.

    Args:
        frame: a results table.
        panels: (test set, metric) pairs; None for `guardtrain.curves.statistics.default_panels`.
        boot_of: makes a panel's points; asked for those that have values.

    Raises:
        DataError: too few ratios at every budget.
    """
    whole = whole_slices(frame)
    check_ratios(whole)
    chosen = panels if panels is not None else default_panels(whole)
    there = [(test, metric) for test, metric in chosen if whole.loc[whole["test"] == test, metric].notna().any()]
    return [one for panel in there for one in ratio_maps(boot_of(*panel))]


def ratio_maps(boot: PointReplicates) -> list[RatioMap]:
    """The map of each head and arm that has `LEAST_RATIOS` at a budget; budgets with fewer than two are left out.

    The differences of a map are one family, over its budgets and ratios.

    Args:
        boot: of a curve on one test set, see `guardtrain.curves.bootstrap.bootstrap_points`, or
            `guardtrain.curves.bootstrap.seed_replicates` where there are no scores.
    """
    out = []
    for head in boot.heads:
        lines = boot.lines(head)
        real = [line for line in lines if line.control == "none"]
        for arm in dict.fromkeys(line.arm for line in lines if line.control == "paired"):
            own = real + [line for line in lines if line.control == "paired" and line.arm == arm]
            made = _map(boot, head, arm, own)
            if made is not None:
                out.append(made)
    return out


def _map(boot: PointReplicates, head: str, arm: str, lines: Sequence[Line]) -> RatioMap | None:
    """The map of some lines, whose ratios ascend; None where they are too few."""
    known = boot.points["mean"].notna().to_numpy()
    rows = [{n: row for n, row in boot.rows(head, line).items() if known[row]} for line in lines]
    there = {n: [r for r, own in enumerate(rows) if n in own] for n in sorted(set().union(*rows))}
    budgets = [n for n, own in there.items() if len(own) > 1]
    if max((len(there[n]) for n in budgets), default=0) < LEAST_RATIOS:
        return None
    shape = len(lines), len(budgets)
    mean, half = np.full(shape, np.nan), np.full(shape, np.nan)
    asked: list[tuple[int, int, int]] = []  # a budget, and two ratios there
    for k, n in enumerate(budgets):
        points = boot.points.loc[[rows[r][n] for r in there[n]]]
        mean[there[n], k], half[there[n], k] = points["mean"], points["half_width"]
        asked += [(k, a, b) for a, b in combinations(there[n], 2)]
    found = family(
        boot.by_seed[[rows[a][budgets[k]] for k, a, _ in asked]]
        - boot.by_seed[[rows[b][budgets[k]] for k, _, b in asked]],
        CONFIDENCE,
    )
    down = boot.metric in LOWER_IS_BETTER
    best = np.nanargmin(mean, axis=0) if down else np.nanargmax(mean, axis=0)
    kept, gain, least = _judged(asked, found, mean, best, lines[0].control == "none", down, boot.metric in NO_INTERVAL)
    counts = boot.points.loc[[rows[r][n] for n in budgets for r in there[n]], "n_seeds"]
    return RatioMap(
        head,
        boot.test,
        boot.metric,
        arm,
        tuple(float(line.ratio or 0) for line in lines),
        tuple(budgets),
        mean,
        half,
        best,
        kept,
        gain,
        least,
        (int(counts.min()), int(counts.max())),
        len(asked),
    )


def _judged(
    asked: Sequence[tuple[int, int, int]],
    found: Family,
    mean: np.ndarray,
    best: np.ndarray,
    with_real: bool,
    down: bool,
    without: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`kept`, `gain` and `least` of a map, of the family of its differences.

    Args:
        asked: of each difference the budget, and the ratios that it is of.
        with_real: whether the first ratio is real data alone.
        down: whether lower is better.
        without: whether the metric has no intervals.
    """
    kept = ~np.isnan(mean)
    gain = np.full((mean.shape[1], 3), np.nan)
    least = np.full(mean.shape[1], np.nan)
    half = np.full(len(asked), np.nan) if without else found.together
    for f, (k, a, b) in enumerate(asked):
        change, width = float(found.difference[f]), float(half[f])
        up = -change if down else change
        if up - width > LEAST:
            kept[b, k] = False
        elif up + width < -LEAST:
            kept[a, k] = False
        if best[k] not in (a, b):
            continue
        if not without:
            least[k] = np.fmin(least[k], found.detectable[f])
        if with_real and a == 0 and best[k] == b:  # of a gain the sign is the metric's own
            gain[k] = -change, -change - width, -change + width
    return kept, gain, least


def ratio_text(found: Sequence[RatioMap]) -> str:
    """The best ratio at each budget and those not told from it, a line a budget; "" where there is no map.

    Args:
        found: maps by one metric, on any test sets.
    """
    if not found:
        return ""
    first = found[0]
    arms, heads = ({getattr(one, name) for one in found} for name in ("arm", "head"))
    what = f"{len(heads)} heads" if len(heads) > 1 else f"{first.head} head"
    out = []
    for test in dict.fromkeys(one.test for one in found):
        out.append(f"Best share of pairs ρ at each budget n, {METRICS[first.metric]} on '{test}' · {what}")
        for one in (one for one in found if one.test == test):
            whose = [one.head] * (len(heads) > 1) + [one.arm] * (len(arms) > 1)
            out += [f"  {', '.join(whose)}"] * bool(whose) + _rows(one)
        out.append("")
    out.pop()
    down = first.metric in LOWER_IS_BETTER
    notes = [f"not told from it: no other ρ is shown to be {'lower' if down else 'higher'} there."]
    if any(one.certain for one in found):
        notes += [
            f"Its 95 % intervals hold for all differences of two ρ in a table with a head at once ({first.asked:,}): "
            "in 95 of 100 curves the best ρ of every n is the one named or one of those beside it.",
            "The value of the best of several is flattered by that it was chosen; the interval of its gain over real "
            "data alone is as wide as the choice demands.",
        ]
    else:
        notes.append("One seed, or a metric without intervals: nothing is told apart.")
    out.append(textwrap.fill(" ".join(notes), WIDTH, initial_indent="  ", subsequent_indent="  "))
    return "\n".join(out)


def _rows(one: RatioMap) -> list[str]:
    """The table of one map."""
    cells = [("n", "best ρ", "its value", "over real only", "not told from it", "would be shown")]
    for k, n in enumerate(one.budgets):
        value, half = one.mean[one.best[k], k], one.half[one.best[k], k]
        change, low, high = one.gain[k]
        gained = "–" if np.isnan(change) else signed(change)
        gained += "" if np.isnan(low) else f" [{signed(low)}, {signed(high)}]"
        told = number_text(value) + ("" if np.isnan(half) else f" ± {number_text(half)}")
        least = "–" if np.isnan(one.least[k]) else f"≥ {number_text(one.least[k])}"
        row = f"{n:,}", share_text(one.ratios[one.best[k]]), told, gained, ratios_text(one, k), least
        cells.append(row)
    return text_table(cells, left=[4])


def ratios_text(one: RatioMap, k: int) -> str:
    """The ratios not told from the best at a budget: "⅛ to ½, 1", "none", "all"."""
    others = one.others(k)
    there = [r for r in range(len(one.ratios)) if not np.isnan(one.mean[r, k])]
    if len(others) == len(there) - 1:
        return "all others"
    runs: list[list[int]] = []
    for r in there:
        if one.ratios[r] in others:
            near = runs and set(range(runs[-1][-1] + 1, r)) <= {int(one.best[k])}
            runs = [*runs[:-1], [*runs[-1], r]] if near else [*runs, [r]]
    texts = []
    for run in runs:
        ends = [share_text(one.ratios[r]) for r in run]
        texts.append(f"{ends[0]} to {ends[-1]}" if len(ends) > 2 else ", ".join(ends))
    return ", ".join(texts) or "none"
