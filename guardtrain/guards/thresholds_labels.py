"""Where validation is too small for a target, and how many labels it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from guardtrain.guards.calibration_inputs import checked_fields
from guardtrain.guards.thresholds_rates import clopper_pearson

WITHIN = 2.0  # a rate counts as known if its interval ends below so many times the target

_MOST = 10_000_000


@dataclass(frozen=True)
class TooFewLabels:
    """A warning: validation is too small for what was asked.

    Args:
        promise: what it cannot promise, in words.
        images: which images lack: `safe`, `unsafe` or `labelled`.
        have: how many there are.
        need: how many it takes; None where no number of labels would do, with this head.
    """

    promise: str
    images: str
    have: int
    need: int | None

    @property
    def more(self) -> int | None:
        """How many labels are missing."""
        return None if self.need is None else max(0, self.need - self.have)

    def __str__(self) -> str:
        if self.need is None:
            return (
                f"Validation cannot promise {self.promise}: this head does not reach it, and more labels do not help."
            )
        return (
            f"{self.have:,} {self.images} validation images are too few to promise {self.promise}: it takes about "
            f"{self.need:,}, that is {self.more:,} more."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `text` is for the reader."""
        return {"text": str(self), **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> TooFewLabels:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys."""
        return cls(**checked_fields(cls, data, extra=["text"]))


def labels_to_guarantee(share: float, confidence: float = 0.95) -> int:
    """The fewest images of a class for a threshold that errs on at most `share` of them with this confidence.

    With none of n on the wrong side, `(1 - share)^n ≤ 1 - confidence` (Tong, Feng and Li, Science Advances 4, 2018).

    >>> labels_to_guarantee(0.05), labels_to_guarantee(0.01)
    (59, 299)
    """
    return _smallest(lambda n: n * math.log1p(-share) <= math.log1p(-confidence) + 1e-12)


def labels_to_know(share: float, confidence: float = 0.95, within: float = WITHIN) -> int:
    """How many images of a class it takes until the interval of a rate of `share` ends below `within · share`.

    >>> labels_to_know(0.05)
    160
    """
    goal = min(within * share, 1.0)
    if goal >= 1:
        return 1
    # worst right where one more error is allowed: n = k / share
    return _ceil(_smallest(lambda k: clopper_pearson(k, k, _ceil(k / share), confidence=confidence)[1] <= goal) / share)


def labels_to_conform(share: float) -> int:
    """The fewest images of a class for a split-conformal threshold that errs on `share` of them on average."""
    return _ceil(1 / share) - 1


def flagged_to_guarantee(precision: float, confidence: float) -> int:
    """The fewest images called unsafe, all of them rightly, that show a precision with this confidence."""
    return _smallest(lambda k: k * math.log(precision) <= math.log1p(-confidence) + 1e-12)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


def _smallest(enough: Callable[[int], bool]) -> int:
    """The smallest whole number from 1 that is enough, where all larger ones are, too."""
    high = 1
    while not enough(high) and high < _MOST:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
