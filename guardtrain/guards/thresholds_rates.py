"""A rate on validation and what it promises elsewhere: exact intervals of the population's rate and of another set's.

Let `t` lie above the (k+1)-th highest of n safe scores and not above the k-th, so that k of n are called unsafe. For
k chosen without the scores, the population's false-positive rate at `t` lies between two variables: that at the k-th
highest score, distributed as Beta(k, n - k + 1), and that just above the (k+1)-th, Beta(k + 1, n - k), whatever the
distribution of scores (David and Nagaraja, Order Statistics, 2003, 2.4). Their quantiles are the Clopper-Pearson
interval of k in n. So although the threshold was chosen on the same scores, that interval is exact, as long as k and
not `t` is what was chosen; it would be too narrow for a `t` picked for how well it looks (see `thresholds`). The other
class's rate at this `t` is an ordinary binomial one: its scores had no say.

A user sees the rate on a finite set. Of m further safe images the number called unsafe is Beta-binomial with the same
two pairs of parameters (Thatcher, JRSS B 26, 1964). That needs exchangeability alone, so it holds exactly for random
splits of one set of images, too, and it is wider.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from guardtrain.errors import DataError
from guardtrain.guards.calibration_inputs import checked_fields


@dataclass(frozen=True)
class Rate:
    """A share of validation images with the Clopper-Pearson interval of the population's.

    Args:
        count, of: so many images of how many; the value is NaN of none.
        at_least, at_most: the counts the ends of the interval are taken at; `count` but for ties at the threshold, see
            `guardtrain.guards.thresholds`.
        effective: how many independent images `of` are worth; fewer than `of` where groups have several.
        low, high: the interval, [0, 1] of no images.
        confidence: of the interval.
    """

    count: int
    of: int
    at_least: int
    at_most: int
    effective: float
    low: float
    high: float
    confidence: float

    @classmethod
    def measured(
        cls,
        count: int,
        of: int,
        *,
        confidence: float = 0.95,
        effective: float | None = None,
        at_least: int | None = None,
        at_most: int | None = None,
    ) -> Self:
        """`count` of `of` with its interval; what is None is as for independent images without ties.

        >>> str(Rate.measured(5, 100))
        '.050 [.016, .113]'
        """
        least, most = count if at_least is None else at_least, count if at_most is None else at_most
        worth = float(of if effective is None else effective)
        low, high = clopper_pearson(least, most, of, worth, confidence)
        return cls(int(count), int(of), int(least), int(most), worth, low, high, confidence)

    @property
    def value(self) -> float:
        """The share on validation."""
        return self.count / self.of if self.of else float("nan")

    def complement(self) -> Rate:
        """The share of the others: of the missed images where this is recall."""
        most, least = self.of - self.at_least, self.of - self.at_most
        return Rate(
            self.of - self.count, self.of, least, most, self.effective, 1 - self.high, 1 - self.low, self.confidence
        )

    def bound(self, upper: bool, confidence: float) -> float:
        """The one-sided bound: with this confidence the population's rate is at most (`upper`) or at least that."""
        low, high = clopper_pearson(self.at_least, self.at_most, self.of, self.effective, 2 * confidence - 1)
        return high if upper else low

    def expected(self, size: int, confidence: float | None = None) -> tuple[float, float]:
        """Where the rate on another `size` images of the class will lie: the Beta-binomial prediction interval.

        Args:
            size: images of another set, of the same population and with groups of the same sizes.
            confidence: None for that of the interval.

        Raises:
            DataError: size below 1.

        >>> Rate.measured(5, 100).expected(100)
        (0.0, 0.14)
        """
        if size < 1:
            raise DataError(f"A rate can be expected on 1 image or more, not on {size}.")
        if not self.of:
            return 0.0, 1.0
        level = self.confidence if confidence is None else confidence
        tail, share = (1 - level) / 2, self.effective / self.of
        worth = max(1, int(size * share + 1e-9))
        low = _beta_binomial_quantile(tail, worth, self.at_least * share, (self.of - self.at_least) * share + 1)
        high = _beta_binomial_quantile(1 - tail, worth, self.at_most * share + 1, (self.of - self.at_most) * share)
        return low / worth, high / worth

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `value` is for the reader."""
        return {"value": self.value if self.of else None, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Rate:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys."""
        return cls(**checked_fields(cls, data, extra=["value"]))

    def __str__(self) -> str:
        ends = ", ".join(map(short, (self.low, self.high)))
        return f"{short(self.value)} [{ends}]"


def clopper_pearson(
    at_least: int, at_most: int, of: int, effective: float | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """The Clopper-Pearson interval; of `count` in `of` with both counts the same.

    Correlated images: both counts and their complement are scaled to the effective number, as Korn and Graubard do for
    surveys (Survey Methodology 24, 1998).

    >>> low, high = clopper_pearson(0, 0, 59, confidence=0.9)
    >>> low, round(high, 3)
    (0.0, 0.05)
    """
    from scipy.special import betaincinv  # scipy.stats takes a second to import

    if not of:
        return 0.0, 1.0
    share, tail = (of if effective is None else effective) / of, (1 - confidence) / 2
    low = betaincinv(at_least * share, (of - at_least) * share + 1, tail) if at_least > 0 else 0.0
    high = betaincinv(at_most * share + 1, (of - at_most) * share, 1 - tail) if at_most < of else 1.0
    return float(low), float(high)


def effective_number(group: np.ndarray) -> float:
    """How many independent images these are worth where images of one group are taken to be as good as the same.

    `n² / Σ n_g²` (Kish, Survey Sampling, 1965, with an intraclass correlation of 1): right for near duplicates, too
    low for groups that have less in common, and never more than the number of groups.

    Args:
        group: (n,) whole numbers from 0.

    >>> effective_number(np.array([0, 0, 1, 1, 2, 2]))
    3.0
    """
    sizes = np.bincount(group).astype(np.float64)
    return float(len(group) ** 2 / np.square(sizes).sum()) if len(group) else 0.0


def _beta_binomial_quantile(q: float, n: int, a: float, b: float) -> float:
    """The smallest number of n with a cumulative probability of at least q; a or b may be 0, a sure outcome."""
    from scipy.special import betaln

    if a <= 0 or b <= 0:
        return 0.0 if a <= 0 else float(n)
    j = np.arange(n + 1)
    log_choose = -betaln(n - j + 1, j + 1) - np.log(n + 1)
    cumulative = np.cumsum(np.exp(log_choose + betaln(j + a, n - j + b) - betaln(a, b)))
    return min(float(n), float(np.searchsorted(cumulative, q - 1e-12)))


def short(value: float) -> str:
    """A rate as it is written, without the 0 before the point; a dash for NaN."""
    return "–" if value != value else f"{value:.3f}".removeprefix("0")
