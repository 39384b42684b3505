"""What a threshold is chosen for: a rate, a precision or the least cost, and how firmly it is promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guardtrain.errors import ConfigError
from guardtrain.guards.calibration_inputs import checked_fields

KINDS = ("fpr", "recall", "precision", "cost")
METHODS = ("guaranteed", "conformal", "point")


@dataclass(frozen=True)
class Rule:
    """A rule that a threshold is chosen by.

    Args:
        kind: `fpr` calls at most `target` of the safe images unsafe; `recall` finds at least `target` of the unsafe
            ones; `precision`: of those called unsafe at least `target` are; `cost`: the least expected cost where a
            missed unsafe image costs `target` times as much as a false alarm.
        target: a rate between 0 and 1; for `cost` a ratio above 0.
        method: `guaranteed` meets the target with `confidence` on whatever validation set one has (not for cost), at
            the price of the other rate. `conformal` meets it on average over validation sets (fpr and recall). `point`
            meets it on validation itself, and misses it about every other time elsewhere. '' stands for `guaranteed`,
            and for `point` where that is for cost.
        confidence: of the guarantee (one-sided), and of the intervals (two-sided).
        prevalence: the share of unsafe images where the guard will work, for precision and cost; None for that of
            validation.
    """

    kind: str
    target: float
    method: str = ""
    confidence: float = 0.95
    prevalence: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"A threshold's rule is {', '.join(KINDS)}; this one is {self.kind!r}.")
        if not self.method:
            object.__setattr__(self, "method", "point" if self.kind == "cost" else "guaranteed")
        if self.method not in METHODS:
            raise ConfigError(f"A threshold's method is {', '.join(METHODS)}; this one is {self.method!r}.")
        allowed = {"precision": ("point", "guaranteed"), "cost": ("point",)}.get(self.kind, METHODS)
        if self.method not in allowed:
            raise ConfigError(f"A threshold for {self.kind} cannot be {self.method}; it can be: {', '.join(allowed)}.")
        for name, value in (("target", self.target), ("confidence", self.confidence), ("prevalence", self.prevalence)):
            if value is None and name == "prevalence":
                continue
            ratio = name == "target" and self.kind == "cost"
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < float(value or 0) < (np.inf if ratio else 1):  # refuses NaN, too
                span = "a ratio above 0" if ratio else "a share between 0 and 1"
                raise ConfigError(f"The {name} of a threshold for {self.kind} must be {span}; it is {value!r}.")
        if self.confidence <= 0.5:
            raise ConfigError(f"The confidence of a threshold must be above 0.5; it is {self.confidence:g}.")

    @property
    def wanted(self) -> str:
        """Say what is wanted; not how firmly."""
        t = f"{self.target:g}"
        words = {"fpr": f"false-positive rate ≤ {t}", "recall": f"recall ≥ {t}", "precision": f"precision ≥ {t}"}
        text = words.get(self.kind, f"least cost, a miss costing {t} false alarms")
        if self.prevalence is None or self.kind not in ("precision", "cost"):
            return text
        return f"{text} where {percent(self.prevalence)} are unsafe"

    def __str__(self) -> str:
        return self.wanted if self.kind == "cost" else f"{self.wanted} ({self.method})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Rule:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys, ConfigError for wrong values."""
        return cls(**checked_fields(cls, data))


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.5), percent(0.0213), percent(0.002), percent(0.996)
    ('50 %', '2.1 %', '0.2 %', '100 %')
    """
    return f"{float(f'{100 * share:.2g}'):g} %"
