"""How a guard does on labelled images other than those that calibrated it and set its thresholds: the other pool's.

A threshold promises a rate, and a calibrated probability a share of unsafe images, for images like those that set it.
On others they hold as far as the head reads the same in both, which is measured here and shown beside the promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from guardtrain.guards.base_rates import shift
from guardtrain.guards.calibration import Calibrator
from guardtrain.guards.calibration_choice import Calibration
from guardtrain.guards.calibration_inputs import Scored, checked_fields, scored
from guardtrain.guards.category_fit import CategoryImages, FittedCategories, category_report
from guardtrain.guards.operating_points import OperatingPoint, OperatingPoints, ThreeWay
from guardtrain.guards.reliability import Reliability, reliability
from guardtrain.guards.thresholds_cut import class_groups
from guardtrain.guards.thresholds_rates import Rate, effective_number
from guardtrain.guards.validation import Validation


@dataclass(frozen=True)
class PointRates:
    """An operating point's effect on other images than those that set it.

    Args:
        false_alarms: safe images called unsafe.
        misses: unsafe images called safe (of three ways: neither unsafe nor left to people).
    """

    false_alarms: Rate
    misses: Rate

    @classmethod
    def of(cls, point: OperatingPoint | ThreeWay, images: Scored) -> PointRates:
        """Measure a point on scored images."""
        lower, upper = (point.lower, point.upper) if isinstance(point, ThreeWay) else (point.threshold,) * 2
        rule = point.unsafe_rule if isinstance(point, ThreeWay) else point.rule
        found = []
        for label, wrong in ((0, images.scores >= upper), (1, images.scores < lower)):
            own = images.labels == label
            worth = effective_number(class_groups(images, label))
            found.append(
                Rate.measured(int(wrong[own].sum()), int(own.sum()), confidence=rule.confidence, effective=worth)
            )
        return cls(*found)

    @classmethod
    def from_dict(cls, data: Any) -> PointRates:
        """Both rates from plain data; raises DataError for missing or unknown keys."""
        return cls(**{name: Rate.from_dict(rate) for name, rate in checked_fields(cls, data).items()})

    @classmethod
    def promised(cls, point: OperatingPoint | ThreeWay) -> PointRates:
        """Return what validation says of the point."""
        if isinstance(point, ThreeWay):
            return cls(point.false_alarms, point.misses)
        return cls(point.fpr, point.recall.complement())


@dataclass(frozen=True)
class Beside:
    """A guard measured on labelled images that had no part in it.

    Args:
        origin: where they are from, in words.
        images, unsafe: how many, and how many of them are unsafe.
        points: by the operating point's name.
        category_points: by the category, of its images and of safe ones without any.
        reliability: of the calibrated probabilities, moved to these images' share of unsafe ones: what is left is not
            for another base rate.
        named: unsafe images whose category is named rightly; None where the guard names none.
    """

    origin: str
    images: int
    unsafe: int
    points: Mapping[str, PointRates]
    category_points: Mapping[str, PointRates]
    reliability: Reliability
    named: Rate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "origin": self.origin,
            "images": self.images,
            "unsafe": self.unsafe,
            "points": _rates_to_dict(self.points),
            "category_points": _rates_to_dict(self.category_points),
            "reliability": self.reliability.to_dict(),
            "named": None if self.named is None else self.named.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Beside:
        """Read what `to_dict` wrote; raises DataError for missing or unknown keys."""
        values = checked_fields(cls, data)
        for name in ("points", "category_points"):
            values[name] = {point: PointRates.from_dict(own) for point, own in values[name].items()}
        values["reliability"] = Reliability.from_dict(values["reliability"])
        values["named"] = None if values["named"] is None else Rate.from_dict(values["named"])
        return cls(**values)

    def warnings(self, points: OperatingPoints, calibration: Calibration) -> tuple[str, ...]:
        """A sentence for each way in which the guard does worse here than validation says, by more than noise."""
        where = f"{self.images:,} {self.origin}"
        found = []
        for kind, label, wrong in (("false_alarms", "safe", "unsafe"), ("misses", "unsafe", "safe")):
            told = []
            for name, here in self.points.items():
                mine, theirs = getattr(here, kind), getattr(PointRates.promised(points[name]), kind)
                if mine.of and mine.low > theirs.high:
                    told.append(f"'{name}' calls {mine} of {label} images {wrong} ({theirs} on validation)")
            if told:
                found.append(f"Its thresholds do not hold on {where}: {'; '.join(told)}.")
        ece = self.reliability.ece
        if not self.reliability.within_noise and ece.low > calibration.after.ece.high:
            found.append(
                f"Its probabilities do not hold on {where}: their calibration error is {ece} there, and "
                f"{calibration.after.ece} on validation."
            )
        if found:
            found.append(
                "Rates and probabilities are for images like those that set them. Where yours are another mix, "
                "calibrate on some of yours: guardtrain calibrate guard=… data=…"
            )
        return tuple(found)


def measured_beside(
    logits: np.ndarray,
    others: Validation,
    *,
    calibrator: Calibrator,
    prior: float | None,
    points: OperatingPoints,
    category_points: Mapping[str, OperatingPoint],
    categories: FittedCategories | None,
    replicates: int,
    seed: int,
) -> Beside:
    """Measure a calibrated head on other images.

    Args:
        logits: (N,) of `others`.
        others: images that neither trained nor calibrated it.
        calibrator: of its logits.
        prior: the share of unsafe images that its probabilities hold for; None where that is unknown: they stay.
        points, category_points: its thresholds.
        categories: its category head, if it has one.
        replicates, seed: of the reliability's intervals.
    """
    images = scored(logits, others.labels, others.groups)
    names = np.array(["" if name is None else str(name) for name in others.categories])
    by_category = {}
    for name, point in category_points.items():
        own = (names == name) | ((names == "") & (others.labels == 0))
        if own.any():
            by_category[name] = PointRates.of(point, images.take(own))
    if prior is not None:
        calibrator = calibrator.moved(shift(prior, float(others.labels.mean())))
    probabilities = calibrator.probabilities(logits)
    named = None
    if categories is not None:
        own_images = CategoryImages.of(others.embeddings, others.labels, others.categories, others.groups)
        named = category_report(categories.head, own_images, categories.images).accuracy
    return Beside(
        others.origin,
        len(others.labels),
        int(others.labels.sum()),
        {name: PointRates.of(point, images) for name, point in points.items()},
        by_category,
        reliability(probabilities, others.labels, others.groups, replicates=replicates, seed=seed),
        named,
    )


def _rates_to_dict(rates: Mapping[str, PointRates]) -> dict[str, Any]:
    return {
        name: {"false_alarms": own.false_alarms.to_dict(), "misses": own.misses.to_dict()}
        for name, own in rates.items()
    }
