"""Base rates: which share of unsafe images probabilities hold for, and what a threshold does where another share is.

By Bayes' rule a probability of being unsafe is right for one share of unsafe images alone. Where the share is another,
and images of either class look as they did, its log-odds differ by the difference of the shares' log-odds (Elkan, The
foundations of cost-sensitive learning, IJCAI 2001; Saerens, Latinne and Decaestecker, Neural Computation 14, 2002). The
order of images stays, and so does what a threshold on logits calls unsafe: recall and false-positive rate are those of
either class alone. The precision, and the share of all images that is called unsafe, follow from both and the share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guardtrain.errors import ConfigError, GuardError
from guardtrain.guards.operating_points import OperatingPoint, ThreeWay, precision_of
from guardtrain.guards.thresholds_rates import Rate, clopper_pearson, short
from guardtrain.guards.thresholds_rules import percent

BASE_RATES = (0.01, 0.05, 0.5)  # shares of unsafe images that a card tells the precision for

Interval = tuple[float, float, float]
"""Value, and low and high end."""


def checked_share(value: Any, name: str = "prior") -> float:
    """`value` as a share of unsafe images.

    Raises:
        ConfigError: no number between 0 and 1.

    >>> checked_share(0.02)
    0.02
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ConfigError(
            f"{name} is the share of unsafe images where the guard works, between 0 and 1, such as {name}=0.02 for "
            f"2 in 100; it is {value!r}."
        )
    return float(value)


def shift(share: float, other: float) -> float:
    """Return what to add to log-odds that hold where `share` of images are unsafe, to hold where `other` are.

    >>> round(shift(0.5, 0.02), 3)
    -3.892
    """
    return math.log(other) - math.log1p(-other) - math.log(share) + math.log1p(-share)


def base_rate(about: Mapping[str, Any]) -> float | None:
    """The share of unsafe images that a guard's probabilities hold for.

    Args:
        about: the guard's `config.json`.

    Returns:
        What it says; of guards made by versions that did not, validation's share. None where nothing calibrated it,
        though versions before this one wrote validation's share there, too.

    Raises:
        ConfigError: what it says is no share.
    """
    said = about.get("prior")
    known = None if said is None else checked_share(said)
    if not (about.get("calibration") or {}).get("folds"):
        return None
    if known is not None:
        return known
    validation = about.get("validation") or {}
    images, unsafe = validation.get("images") or 0, validation.get("unsafe") or 0
    return unsafe / images if 0 < unsafe < images else None


def shift_to(prior: float, about: Mapping[str, Any]) -> float:
    """Return what moves a guard's log-odds to those for `prior`.

    Raises:
        ConfigError: `prior` is no share.
        GuardError: for which share its probabilities hold is unknown: nothing calibrated it.
    """
    checked_share(prior)
    if (now := base_rate(about)) is None:
        raise GuardError(
            f"For which share of unsafe images the probabilities of {about.get('name') or 'this guard'} hold is "
            f"unknown, for nothing calibrated it: prior={prior:g} cannot move them. Calibrate it on labelled images, "
            "two of either class at least: "
            f"guardtrain calibrate guard=… data=… prior={prior:g}"
        )
    return shift(now, prior)


def holding(prior: float | None) -> str:
    """Say, behind a guard's name, for which share its probabilities hold; nothing where it is unknown.

    >>> holding(0.02)
    '; probabilities where 2 % of images are unsafe'
    """
    return "" if prior is None else f"; probabilities where {percent(prior)} of images are unsafe"


@dataclass(frozen=True)
class AtBaseRate:
    """A threshold's effect where a given share of images is unsafe.

    The ends of the intervals are taken at those of recall and false-positive rate, each at so much more confidence that
    both hold at once: the confidence of the intervals is at least that of the two rates.

    Args:
        precision: the share of those called unsafe that are; NaN where nothing is called unsafe.
        flagged: the share of all images that is called unsafe.
    """

    precision: Interval
    flagged: Interval

    @classmethod
    def of(cls, point: OperatingPoint | ThreeWay, share: float) -> AtBaseRate:
        """Compute what an operating point does where `share` of images are unsafe.

        Of three ways only what is called unsafe counts, not what is left to people.

        Raises:
            ConfigError: a share that is not between 0 and 1.
        """
        checked_share(share, "share")
        rates = (point.false_alarms, point.caught) if isinstance(point, ThreeWay) else (point.fpr, point.recall)
        fpr, recall = map(_both, rates)
        called = [share * found + (1 - share) * alarms for found, alarms in zip(recall, fpr, strict=True)]
        return cls(
            (
                precision_of(recall[0], fpr[0], share),
                precision_of(recall[1], fpr[2], share),
                precision_of(recall[2], fpr[1], share),
            ),
            (called[0], called[1], called[2]),
        )


def other_rates(prior: float | None, share: float) -> list[float]:
    """The shares of unsafe images that precision is told for: the usual ones, and a prior that is not validation's.

    >>> other_rates(0.02, 0.4), other_rates(0.4, 0.4)
    ([0.01, 0.02, 0.05, 0.5], [0.01, 0.05, 0.5])
    """
    return sorted({*BASE_RATES, *([] if prior is None or prior == share else [prior])})


def told(interval: Interval) -> str:
    """A value with its interval, as rates are written.

    >>> told((0.05, 0.0164, 1.0))
    '.050 [.016, 1.000]'
    """
    value, low, high = map(short, interval)
    return f"{value} [{low}, {high}]"


def _both(rate: Rate) -> Interval:
    """A rate with an interval that holds together with another such one at the rate's confidence (Bonferroni)."""
    low, high = clopper_pearson(rate.at_least, rate.at_most, rate.of, rate.effective, (1 + rate.confidence) / 2)
    return rate.value, low, high
