"""Operating points: a rule, the threshold it led to and what validation says of it; several under names, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.calibration_inputs import checked_fields
from guardtrain.guards.thresholds_labels import TooFewLabels
from guardtrain.guards.thresholds_rates import Rate
from guardtrain.guards.thresholds_rules import Rule

NOISE = 1e-9  # of floats
SAFE, UNSAFE, REVIEW = 0, 1, 2
DECISIONS = ("safe", "unsafe", "review")  # what the numbers of `decide` mean


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold: an image is unsafe from it on.

    Args:
        name: how it is asked for.
        rule: what it was chosen for.
        threshold: in the units of the scores it was chosen on.
        fpr, recall, precision: on validation, with intervals for the population (precision: at the validation set's
            share of unsafe images).
        bound: with the rule's confidence the population's rate (the rule's) is at most, for recall and precision at
            least, that; None for cost.
        warnings: where validation was too small.
        notes: what else to know of it.
    """

    name: str
    rule: Rule
    threshold: float
    fpr: Rate
    recall: Rate
    precision: Rate
    bound: float | None
    warnings: tuple[TooFewLabels, ...] = ()
    notes: tuple[str, ...] = ()
    decision: ClassVar[str] = "two_way"

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """int8 of the scores' shape: 0 safe, 1 unsafe; see `DECISIONS`."""
        return (np.asarray(scores, dtype=np.float64) >= self.threshold).astype(np.int8)

    @property
    def promised(self) -> bool:
        """Whether the bound meets the target."""
        if self.bound is None:
            return False
        beyond = self.bound - self.rule.target if self.rule.kind == "fpr" else self.rule.target - self.bound
        return beyond <= NOISE

    @property
    def chosen_for(self) -> str:
        """The rule in words; that it is guaranteed stands there only where it is, else how many labels are missing."""
        return self.rule.wanted + _firmness(self.rule, self.promised, self.warnings)

    @property
    def line(self) -> str:
        """The point in one line, for a card."""
        text = f"{self.name}: {self.chosen_for}, threshold {self.threshold:.4g}: fpr {self.fpr}, recall {self.recall}"
        if self.rule.kind == "precision":
            text += f", precision {self.precision}"
        if self.bound is None:
            return text
        side = "at most" if self.rule.kind == "fpr" else "at least"
        return f"{text}; {self.rule.kind} {side} {self.bound:.3f} with {self.rule.confidence:.0%} confidence"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `operating_point_from_dict` reads it."""
        return {
            "decision": self.decision,
            "name": self.name,
            "rule": self.rule.to_dict(),
            "threshold": self.threshold,
            "fpr": self.fpr.to_dict(),
            "recall": self.recall.to_dict(),
            "precision": self.precision.to_dict(),
            "bound": self.bound,
            "warnings": [warning.to_dict() for warning in self.warnings],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Any) -> OperatingPoint:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys, or no finite threshold."""
        values = checked_fields(cls, data, extra=["decision"])
        rates = {name: Rate.from_dict(values[name]) for name in ("fpr", "recall", "precision")}
        warnings = tuple(TooFewLabels.from_dict(warning) for warning in values["warnings"])
        made: dict[str, Any] = {"rule": Rule.from_dict(values["rule"]), "warnings": warnings}
        made |= {"threshold": finite(values["threshold"], "threshold"), "notes": tuple(values["notes"])}
        return cls(**values | rates | made)


@dataclass(frozen=True)
class ThreeWay:
    """Two thresholds: unsafe from `upper` on, safe below `lower`, in between for human review.

    Args:
        name: how it is asked for.
        unsafe_rule: of kind fpr, what `upper` was chosen for: safe images called unsafe.
        safe_rule: of kind recall, what `lower` was chosen for: unsafe images that are not called safe.
        lower, upper: in the units of the scores they were chosen on; equal where nothing needs review.
        false_alarms: safe images called unsafe.
        misses: unsafe images called safe.
        reviewed_safe, reviewed_unsafe: images of either class that are left to people.
        warnings, notes: as of `OperatingPoint`.
    """

    name: str
    unsafe_rule: Rule
    safe_rule: Rule
    lower: float
    upper: float
    false_alarms: Rate
    misses: Rate
    reviewed_safe: Rate
    reviewed_unsafe: Rate
    warnings: tuple[TooFewLabels, ...] = ()
    notes: tuple[str, ...] = ()
    decision: ClassVar[str] = "three_way"

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise DataError(f"The lower threshold {self.lower:g} of '{self.name}' is above the upper {self.upper:g}.")

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """int8 of the scores' shape: 0 safe, 1 unsafe, 2 review; see `DECISIONS`."""
        values = np.asarray(scores, dtype=np.float64)
        return np.where(values >= self.upper, UNSAFE, np.where(values < self.lower, SAFE, REVIEW)).astype(np.int8)

    @property
    def caught(self) -> Rate:
        """Unsafe images called unsafe: neither missed nor left to people."""
        left = self.reviewed_unsafe
        count = left.of - self.misses.count - left.count
        return Rate.measured(count, left.of, confidence=left.confidence, effective=left.effective)

    @property
    def chosen_for(self) -> str:
        """Both rules in words; each is called guaranteed only where it is, else the labels that lack are told."""

        def firm(rule: Rule, images: str) -> str:
            lacking = [warning for warning in self.warnings if warning.images == images]
            return _firmness(rule, not lacking, lacking)

        alarms, misses = f"{self.unsafe_rule.target:g}", f"{1 - self.safe_rule.target:g}"
        alarms, misses = alarms + firm(self.unsafe_rule, "safe"), misses + firm(self.safe_rule, "unsafe")
        return f"safe called unsafe ≤ {alarms}, unsafe called safe ≤ {misses}"

    @property
    def line(self) -> str:
        """The point in one line, for a card."""
        return (
            f"{self.name}: {self.chosen_for}: safe below {self.lower:.4g}, unsafe from {self.upper:.4g}, review "
            f"between: safe images called unsafe {self.false_alarms}, unsafe called safe {self.misses}; for review "
            f"{self.reviewed_safe} of safe, {self.reviewed_unsafe} of unsafe images"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `operating_point_from_dict` reads it."""
        rates = ("false_alarms", "misses", "reviewed_safe", "reviewed_unsafe")
        return {
            "decision": self.decision,
            "name": self.name,
            "unsafe_rule": self.unsafe_rule.to_dict(),
            "safe_rule": self.safe_rule.to_dict(),
            "lower": self.lower,
            "upper": self.upper,
            **{name: getattr(self, name).to_dict() for name in rates},
            "warnings": [warning.to_dict() for warning in self.warnings],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Any) -> ThreeWay:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys, or infinite thresholds."""
        values = checked_fields(cls, data, extra=["decision"])
        for name in ("unsafe_rule", "safe_rule"):
            values[name] = Rule.from_dict(values[name])
        for name in ("false_alarms", "misses", "reviewed_safe", "reviewed_unsafe"):
            values[name] = Rate.from_dict(values[name])
        for name in ("lower", "upper"):
            values[name] = finite(values[name], name)
        values["warnings"] = tuple(TooFewLabels.from_dict(warning) for warning in values["warnings"])
        values["notes"] = tuple(values["notes"])
        return cls(**values)


Point = OperatingPoint | ThreeWay


@dataclass(frozen=True)
class OperatingPoints:
    """The operating points of a guard by name, in order: `points["strict"]`, `"strict" in points`, `list(points)`.

    Args:
        points: at least one, no name twice.
        default: the one that is used where none is asked for; None for the first.

    Raises:
        ConfigError: no points, a name twice, a default that there is not.
    """

    points: tuple[Point, ...]
    default: str = ""

    def __post_init__(self) -> None:
        names = [point.name for point in self.points]
        if not names:
            raise ConfigError("A guard needs at least one operating point.")
        if double := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"Two operating points are called '{double[0]}'; each needs a name of its own.")
        if not self.default:
            object.__setattr__(self, "default", names[0])
        self[self.default]

    def __getitem__(self, name: str) -> Point:
        for point in self.points:
            if point.name == name:
                return point
        raise ConfigError(f"There is no operating point '{name}'; this guard has: {', '.join(self)}.")

    def __contains__(self, name: object) -> bool:
        return any(point.name == name for point in self.points)

    def __iter__(self) -> Iterator[str]:
        return iter(point.name for point in self.points)

    def __len__(self) -> int:
        return len(self.points)

    def items(self) -> Iterator[tuple[str, Point]]:
        """Names with points, in order."""
        return ((point.name, point) for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"default": self.default, "points": [point.to_dict() for point in self.points]}

    @classmethod
    def from_dict(cls, data: Any) -> OperatingPoints:
        """Read what `to_dict` wrote; raises DataError or ConfigError for what is missing, unknown or wrong."""
        values = checked_fields(cls, data)
        return cls(tuple(operating_point_from_dict(point) for point in values["points"]), values["default"])


def operating_point_from_dict(data: Any) -> Point:
    """The point that `to_dict` wrote; raises DataError for a decision that is neither two_way nor three_way."""
    decision = data.get("decision") if isinstance(data, Mapping) else None
    kinds: dict[str, type[OperatingPoint] | type[ThreeWay]] = {
        kind.decision: kind for kind in (OperatingPoint, ThreeWay)
    }
    if decision not in kinds:
        raise DataError(f"The decision of an operating point is {' or '.join(kinds)}; this one's is {decision!r}.")
    return kinds[decision].from_dict(data)


def _firmness(rule: Rule, promised: bool, warnings: Sequence[TooFewLabels]) -> str:
    """How firmly a rule is kept, in brackets: its method, or what a guarantee lacks."""
    if rule.kind == "cost":
        return ""
    if rule.method != "guaranteed" or promised:
        return f" ({rule.method})"
    missing = [warning for warning in warnings if warning.more]
    return f" ({missing[0].more:,} {missing[0].images} images short)" if missing else " (out of reach)"


def precision_of(recall: float, fpr: float, prevalence: float) -> float:
    """Precision by Bayes' rule; NaN where nothing is called unsafe."""
    found, alarms = prevalence * recall, (1 - prevalence) * fpr
    return found / (found + alarms) if found + alarms > 0 else float("nan")


def finite(value: Any, name: str) -> float:
    """`value` as a float; raises DataError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise DataError(f"The {name} of an operating point must be a finite number; it is {value!r}.")
    return float(value)
