"""What a threshold is chosen for: a rate, a precision or the least cost, and how firmly it is promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guardtrain.errors import ConfigError
from guardtrain.guards.calibration_inputs import checked_fields

KINDS = ("fpr", "recall", "precision", "cost")
METHODS = ("point", "conformal", "guaranteed")


@dataclass(frozen=True)
class Rule:
    """What a threshold is chosen for.

    Args:
        kind: `fpr` calls at most `target` of the safe images unsafe; `recall` finds at least `target` of the unsafe
            ones; `precision`: of those called unsafe at least `target` are; `cost`: the least expected cost where a
            missed unsafe image costs `target` times as much as a false alarm.
        target: a rate between 0 and 1; for `cost` a ratio above 0.
        method: `point` meets the target on validation itself, and misses it about every other time elsewhere.
            `conformal` meets it on average over validation sets (fpr and recall). `guaranteed` meets it with
            `confidence` on whatever validation set one has (not for cost), at the price of the other rate.
        confidence: of the guarantee (one-sided), and of the intervals (two-sided).
        prevalence: the share of unsafe images where the guard will work, for precision and cost; None for that of
            validation.
    """

    kind: str
    target: float
    method: str = "point"
    confidence: float = 0.95
    prevalence: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"A threshold's rule is {', '.join(KINDS)}; this one is {self.kind!r}.")
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

    def __str__(self) -> str:
        t = f"{self.target:g}"
        words = {"fpr": f"false-positive rate ≤ {t}", "recall": f"recall ≥ {t}", "precision": f"precision ≥ {t}"}
        text = words.get(self.kind, f"least cost, a miss costing {t} false alarms")
        return text if self.kind == "cost" else f"{text} ({self.method})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Rule:
        """What `to_dict` wrote; raises DataError for missing or unknown keys, ConfigError for wrong values."""
        return cls(**checked_fields(cls, data))
