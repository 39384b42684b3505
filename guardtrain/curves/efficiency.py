"""What a curve says about labels: area under it, the budget a target needs, and how far data of another kind goes.

All of it is computed from the replicates of `guardtrain.curves.bootstrap`, and carries their intervals. Nothing is
extrapolated: what lies outside the measured budgets is censored, and is printed as a bound ("≥ 4.0").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from guardtrain.curves.bootstrap import PointReplicates
from guardtrain.curves.results import LOWER_IS_BETTER
from guardtrain.curves.statistics import Line
from guardtrain.errors import DataError

_RISE = 0.01  # of a metric


@dataclass(frozen=True)
class Estimate:
    """A number with its percentile interval, which may be censored on either side.

    Args:
        value: from the mean curve; -inf where it lies below what was measured, +inf above, NaN where undefined.
        low, high: the interval; an end that is -inf or +inf is censored.
        floor, ceiling: the bounds that -inf and +inf stand for: "at most `floor`", "at least `ceiling`".
        below, above: shares of the defined replicates that are censored.
        undefined: share of all replicates that have no value.
        confidence: of the interval.
    """

    value: float
    low: float
    high: float
    floor: float = -np.inf
    ceiling: float = np.inf
    below: float = 0.0
    above: float = 0.0
    undefined: float = 0.0
    confidence: float = 0.95

    @property
    def at_least(self) -> float:
        """Return what the lower end allows to claim: `ceiling` at most, -inf where it is censored below."""
        return min(self.low, self.ceiling)

    @property
    def at_most(self) -> float:
        """Return what the upper end allows to claim: `floor` at least, +inf where it is censored above."""
        return max(self.high, self.floor)

    def text(self, digits: int = 2) -> str:
        """Value and interval with `digits` decimals: "2.95 [2.10, ≥ 4.00]"; a censored number is its bound.

        Where all three are beyond the same bound, it stands alone: "≥ 4.00".

        >>> Estimate(2.94, 2.1, float("inf"), floor=0.1, ceiling=4.0).text(1)
        '2.9 [2.1, ≥ 4.0]'
        """
        if np.isnan([self.value, self.low, self.high]).all():
            return "–"
        value, low, high = (self._bound(number, digits) for number in (self.value, self.low, self.high))
        if np.isinf(self.value) and self.low == self.value == self.high:
            return value
        return f"{value} [{low}, {high}]"

    def _bound(self, number: float, digits: int) -> str:
        if np.isnan(number):
            return "–"
        if np.isinf(number):
            sign, number = ("≥ ", self.ceiling) if number > 0 else ("≤ ", self.floor)
            return f"{sign}{number:,.{digits}f}".replace("-", "−")
        return f"{number:,.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class LineReplicates:
    """One line of a curve, by ascending budget.

    Args:
        budgets: (K,) labelled images granted.
        n_images, n_real, n_pairs: (K,) what was used: images in all, real ones, and pairs (for the unpaired control
            as many as its images would make).
        mean: (K,) the metric's mean over seeds.
        replicates: (K, B) the metric in each replicate.
        increasing: whether more is better.
        confidence: of the intervals the replicates were made for.
    """

    budgets: np.ndarray
    n_images: np.ndarray
    n_real: np.ndarray
    n_pairs: np.ndarray
    mean: np.ndarray
    replicates: np.ndarray
    increasing: bool = True
    confidence: float = 0.95

    def __post_init__(self) -> None:
        n = len(self.budgets)
        sizes = [len(a) for a in (self.n_images, self.n_real, self.n_pairs, self.mean, self.replicates)]
        if not n or set(sizes) != {n} or self.replicates.ndim != 2:
            raise DataError(f"A line needs K ≥ 1 budgets and as many of all the rest; {n} budgets, then {sizes}.")
        for name, steps in (("budgets", self.budgets), ("numbers of images", self.n_images)):
            if steps[0] <= 0 or (np.diff(steps) <= 0).any():
                raise DataError(f"The {name} of a line must be positive and ascend; they are {steps.tolist()}.")

    @classmethod
    def of(cls, boot: PointReplicates, line: Line, head: str | None = None) -> LineReplicates:
        """The points of `line` in `boot`; `head` must be named where there are several.

        Raises:
            DataError: no such line, a line over ratios, or several heads.
        """
        if head is None and len(boot.heads) > 1:
            raise DataError(f"The curve has several heads ({', '.join(boot.heads)}): name one.")
        rows = list(boot.rows(boot.heads[0] if head is None else head, line).values())
        if not rows:
            raise DataError(f"The curve has no points of {line}" + (f" with head '{head}'." if head else "."))
        return cls.of_rows(boot, rows)

    @classmethod
    def of_rows(cls, boot: PointReplicates, rows: Sequence[int]) -> LineReplicates:
        """The points in some rows of `boot.points`, by ascending budget."""
        names = ("budget", "n_images", "n_real", "n_pair_images", "mean")
        budgets, images, real, pair_images, mean = (boot.points.loc[list(rows), name].to_numpy(float) for name in names)
        increasing = boot.metric not in LOWER_IS_BETTER
        return cls(budgets, images, real, pair_images / 2, mean, boot.replicates[rows], increasing, boot.confidence)

    def at(self, budgets: np.ndarray) -> LineReplicates:
        """This line at those of `budgets` that it has points at."""
        kept = np.isin(self.budgets, budgets)
        columns = ("budgets", "n_images", "n_real", "n_pairs", "mean", "replicates")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})

    @property
    def curves(self) -> np.ndarray:
        """(K, 1 + B): the mean curve, then the replicates."""
        return np.column_stack([self.mean, self.replicates])


def rises(line: LineReplicates) -> bool:
    """Whether more images make a line better: by a hundredth from the first budget to the last, or for certain.

    Where they do not (at a ceiling, or in noise), no number of its images is as good as another line: what an inverse
    gives there is the noise's. A rise of a hundredth and more that few seeds leave uncertain shows in the intervals.
    """
    change = estimate_of((line.curves[-1] - line.curves[0]) * (1 if line.increasing else -1), line.confidence)
    return change.value >= _RISE or change.low > 0


def isotonic(values: np.ndarray, increasing: bool = True) -> np.ndarray:
    """Least-squares monotone fit along the first axis, for all columns at once.

    By the min-max formula `f_k = max_{a≤k} min_{b≥k} mean(y_a … y_b)` (Robertson, Wright and Dykstra, "Order
    Restricted Statistical Inference", 1988, section 1.4); equal to scikit-learn's `IsotonicRegression` without weights.

    Args:
        values: (K, B) float; K is the number of budgets, a handful. A column with a NaN is NaN.

    Returns:
        (K, B) float64.
    """
    y = np.asarray(values, dtype=np.float64) * (1 if increasing else -1)
    n = len(y)
    fit = np.full(y.shape, -np.inf)
    for a in range(n):
        means = np.cumsum(y[a:], axis=0) / np.arange(1, n - a + 1)[:, None]  # mean(y_a … y_b) for b = a …
        smallest = np.minimum.accumulate(means[::-1], axis=0)[::-1]  # over b ≥ k
        fit[a:] = np.maximum(fit[a:], smallest)
    fit[:, np.isnan(y).any(axis=0)] = np.nan
    for k in range(1, n):  # blocks are flat up to rounding, which an inverse would take for a slope
        fit[k] = np.where(np.isclose(fit[k], fit[k - 1], rtol=1e-12, atol=1e-15), fit[k - 1], fit[k])
    return fit if increasing else -fit


def area(line: LineReplicates) -> Estimate:
    """Area under the learning curve over log2 budgets, divided by their range: a mean of the metric, in its unit.

    `∫ m(n) d log2 n / (log2 n_K - log2 n_1)` by the trapezoid rule. Lines compare where their budgets are the same.

    Raises:
        DataError: fewer than two budgets.
    """
    return estimate_of(_areas(line), line.confidence)


def area_difference(a: LineReplicates, b: LineReplicates) -> Estimate:
    """`area(a) - area(b)` over the budgets that both have, paired replicate by replicate.

    Undefined where these are fewer than two.

    Raises:
        DataError: another number of replicates on one side.
    """
    _check_paired(a, b)
    common = np.intersect1d(a.budgets, b.budgets)
    if len(common) < 2:
        return Estimate(np.nan, np.nan, np.nan, undefined=1.0, confidence=a.confidence)
    return estimate_of(_areas(a.at(common)) - _areas(b.at(common)), a.confidence)


def budget_needed(line: LineReplicates, target: float) -> Estimate:
    """The number of images at which the line reaches `target`: "≥ max" where it never does, "≤ min" where it has.

    Each replicate is made monotone (`isotonic`) and interpolated linearly in log2 of the images used; the smallest
    number that reaches the target counts.

    Args:
        line: of any arm; images that the add arm put on top are counted.
        target: a value of the metric.

    Returns:
        Images; `floor` and `ceiling` are the smallest and the largest number measured.
    """
    fit = isotonic(line.curves, line.increasing)
    levels = np.full((1, fit.shape[1]), float(target))
    steps = np.log2(line.n_images)
    needed = np.exp2(_inverse(steps, fit, levels, line.increasing, middle=False)[0])
    return estimate_of(_censored(needed), line.confidence, line.n_images[0], line.n_images[-1])


def data_multiplier(real: LineReplicates, arm: LineReplicates) -> list[Estimate]:
    """For each budget of `arm`: how many real images do as well, divided by the images the arm used.

    `M(n) = n_real-only(m_arm(n)) / n_arm`, where `n_real-only(·)` inverts the real-only line by linear interpolation
    in log2 n, after both lines were made monotone. Where that line is flat at exactly this level, the middle (in
    log2 n) of the flat stretch counts, so that a line against itself has the geometric mean 1. A level above all of the
    real-only line gives "at least `max n / n_arm`", one below all of it "at most `min n / n_arm`".

    Args:
        real: real data alone.
        arm: another line, in the same replicates.

    Returns:
        One estimate a budget of `arm`, in order.

    Raises:
        DataError: another number of replicates on one side.
    """
    equal = _equal_budget(real, arm)
    return [
        estimate_of(_censored(equal[k]) / n, arm.confidence, real.n_images[0] / n, real.n_images[-1] / n)
        for k, n in enumerate(arm.n_images)
    ]


def pair_worth(real: LineReplicates, arm: LineReplicates) -> list[Estimate]:
    """For each budget of `arm`: how many real images one of its pairs is worth.

    `(n_real-only(m_arm(n)) - n_real of the arm) / pairs of the arm`, with `n_real-only` as in `data_multiplier`. A pair
    is two labelled images: above 2 it is worth more than its labels, below 0 it does harm. For the unpaired
    control it is what two of its images are worth; where there are no pairs it is NaN.

    Arguments, result and errors as for `data_multiplier`.
    """
    equal = _equal_budget(real, arm)
    out = []
    for k, (kept, pairs) in enumerate(zip(arm.n_real, arm.n_pairs, strict=True)):
        if not pairs:
            out.append(Estimate(np.nan, np.nan, np.nan, undefined=1.0, confidence=arm.confidence))
            continue
        floor, ceiling = ((n - kept) / pairs for n in (real.n_images[0], real.n_images[-1]))
        out.append(estimate_of((_censored(equal[k]) - kept) / pairs, arm.confidence, floor, ceiling))
    return out


def _areas(line: LineReplicates) -> np.ndarray:
    if len(line.budgets) < 2:
        raise DataError("An area needs at least two budgets; the line has one.")
    steps = np.log2(line.budgets)
    middles = (line.curves[1:] + line.curves[:-1]) / 2
    return np.asarray(np.diff(steps) @ middles / (steps[-1] - steps[0]))


def _equal_budget(real: LineReplicates, arm: LineReplicates) -> np.ndarray:
    """(K of the arm, 1 + B) real images that reach the arm's level; 0 is below the real-only line's range."""
    _check_paired(real, arm)
    levels = isotonic(arm.curves, arm.increasing)
    fit = isotonic(real.curves, real.increasing)
    return np.exp2(_inverse(np.log2(real.n_images), fit, levels, real.increasing, middle=True))


def _check_paired(a: LineReplicates, b: LineReplicates) -> None:
    if a.replicates.shape[1] != b.replicates.shape[1] or a.increasing != b.increasing or a.confidence != b.confidence:
        raise DataError("Two lines compare in the replicates of one bootstrap, of one metric; these are of two.")


def _inverse(steps: np.ndarray, fit: np.ndarray, levels: np.ndarray, increasing: bool, middle: bool) -> np.ndarray:
    """Where monotone columns reach levels, by linear interpolation.

    Args:
        steps: (K,) ascending.
        fit: (K, B) monotone columns.
        levels: (L, B).
        middle: of a flat stretch at exactly the level, its middle instead of its start.

    Returns:
        (L, B); -inf for levels that the first step has passed, +inf for levels that the last does not reach.
    """
    sign = 1 if increasing else -1
    fit, levels = sign * fit, sign * levels
    columns = np.arange(fit.shape[1])
    out = np.empty(levels.shape)
    for row, level in enumerate(levels):
        first = (fit < level).sum(axis=0)  # the first step at or above the level; K where there is none
        last = (fit <= level).sum(axis=0) - 1  # the last step at or below it; -1 where there is none
        above, under = np.minimum(first, len(fit) - 1), np.maximum(first - 1, 0)
        rise = fit[above, columns] - fit[under, columns]
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.where(rise > 0, (level - fit[under, columns]) / rise, 0)
        start = steps[under] + part * (steps[above] - steps[under])
        if middle:
            start = np.where(last >= first, (steps[above] + steps[np.maximum(last, 0)]) / 2, start)
        out[row] = np.where(first == len(fit), np.inf, np.where(last < 0, -np.inf, start))
        out[row, np.isnan(level) | np.isnan(fit).any(axis=0)] = np.nan
    return out


def _censored(images: np.ndarray) -> np.ndarray:
    """Numbers of images with 0, which stands for "fewer than measured", as -inf."""
    return np.where(images == 0, -np.inf, images)


def estimate_of(values: np.ndarray, confidence: float, floor: float = -np.inf, ceiling: float = np.inf) -> Estimate:
    """Value and percentile interval of a number that was computed from the mean curve and from every replicate.

    The ends are order statistics, rounded outwards and not interpolated: there is nothing between a number and a bound.

    Args:
        values: (1 + B,) the mean curve's, then the replicates'; -inf and +inf are censored, NaN is undefined.
        confidence: of the interval.
        floor, ceiling: the bounds that -inf and +inf stand for.
    """
    every = values[1:]
    known = np.sort(every[~np.isnan(every)])
    undefined = 1 - len(known) / len(every) if len(every) else 1.0
    if not len(known):
        return Estimate(float(values[0]), np.nan, np.nan, floor, ceiling, 0.0, 0.0, undefined, confidence)
    tail = (1 - confidence) / 2
    low, high = known[int(tail * (len(known) - 1))], known[-1 - int(tail * (len(known) - 1))]
    below, above = float(np.isneginf(known).mean()), float(np.isposinf(known).mean())
    return Estimate(
        float(values[0]), float(low), float(high), float(floor), float(ceiling), below, above, undefined, confidence
    )
