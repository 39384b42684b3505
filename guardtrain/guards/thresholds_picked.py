"""Thresholds that are picked by how they look, for precision or least cost, from places fixed beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guardtrain.guards.calibration_inputs import Scored
from guardtrain.guards.operating_points import OperatingPoint, precision_of
from guardtrain.guards.thresholds_cut import beside, called_rate, flagged_precision, group_notes, with_confidence
from guardtrain.guards.thresholds_labels import TooFewLabels, flagged_to_guarantee
from guardtrain.guards.thresholds_rates import Rate, effective_number
from guardtrain.guards.thresholds_rules import Rule

PLACES = 47
STARTS = 4


def picked_point(images: Scored, rule: Rule, name: str) -> OperatingPoint:
    """The best of the places fixed beforehand for precision or cost; see `guardtrain.guards.thresholds`."""
    places = candidate_places(len(images.scores))
    each = 1 - (1 - rule.confidence) / len(places)
    tried = [_measured(images, threshold, each) for threshold in _thresholds(images, places)]
    warnings: tuple[TooFewLabels, ...] = ()
    bound: float | None = None
    if rule.kind == "cost":
        prior = float(images.labels.mean()) if rule.prevalence is None else rule.prevalence
        costs = [rule.target * prior * (1 - place.recall.value) + (1 - prior) * place.fpr.value for place in tried]
        at = int(np.argmin(costs))
    else:
        passed = _passed(tried, rule, effective_number(images.group) / len(images.scores))
        bounds, values = [_bound(place, rule, each) for place in tried], [_value(place, rule) for place in tried]
        meets = passed if rule.method == "guaranteed" else [i for i, v in enumerate(values) if v >= rule.target]
        at = max(meets) if meets else int(np.argmax(bounds if rule.method == "guaranteed" else values))
        bound = rule.target if at in passed else bounds[at]  # the tests say no more than that it is not lower
        warnings = () if passed else (_labels(tried, rule, len(images.scores)),)
    notes = group_notes(len(images.scores), effective_number(images.group), "validation")
    notes += (f"Picked among {len(places)} thresholds, for all of which the intervals hold at once.",)
    chosen = tried[at]
    rates = chosen.fpr, chosen.recall, chosen.precision
    return OperatingPoint(name, rule, chosen.threshold, *rates, bound, warnings, notes)


@dataclass(frozen=True)
class _Place:
    """A candidate and its rates."""

    threshold: float
    fpr: Rate
    recall: Rate
    precision: Rate


def candidate_places(n: int) -> list[int]:
    """How many of n images each candidate calls unsafe: evenly spaced in the logit of their share; fixed by n alone."""
    shares = 1 / (1 + np.exp(-np.linspace(-5.75, 5.75, PLACES)))
    return sorted({*np.clip(np.round(n * shares), 1, n).astype(int).tolist(), n})[-PLACES:]


def _thresholds(images: Scored, places: list[int]) -> list[float]:
    """The thresholds that call so many images unsafe (fewer where scores tie)."""
    ordered = np.sort(images.scores)[::-1]
    lowest = beside(images.scores, ordered[-1], upward=False)
    return [beside(images.scores, ordered[k], upward=True) if k < len(ordered) else lowest for k in places]


def _measured(images: Scored, threshold: float, confidence: float) -> _Place:
    fpr, recall = (called_rate(images, label, threshold, confidence) for label in (0, 1))
    return _Place(threshold, fpr, recall, flagged_precision(images, threshold, confidence))


def _passed(tried: list[_Place], rule: Rule, share: float) -> list[int]:
    """The places where a precision below the target is refuted.

    Fixed-sequence testing from several starts ("learn then test"): each start has its part of the error, and hands it
    on from place to place as long as the target is refuted; so there is no price for many places. The first start is
    where as few images are called unsafe as can show the target, the others are evenly spaced, in the logarithm.

    Args:
        share: of independent images among all.
    """
    each = 1 - (1 - rule.confidence) / STARTS
    sizes = [place.precision.of for place in tried]
    least = flagged_to_guarantee(rule.target, each) / share
    out: set[int] = set()
    for start in np.geomspace(min(least, sizes[-1]), sizes[-1], STARTS + 1)[:-1]:
        at = int(np.searchsorted(sizes, start))
        while at < len(tried) and _bound(tried[at], rule, each) >= rule.target:
            out.add(at)
            at += 1
    return sorted(out)


def _value(place: _Place, rule: Rule) -> float:
    if rule.prevalence is None:
        return place.precision.value if place.precision.of else 0.0
    return np.nan_to_num(precision_of(place.recall.value, place.fpr.value, rule.prevalence))


def _bound(place: _Place, rule: Rule, confidence: float) -> float:
    """The lower bound of the precision at one place."""
    if rule.prevalence is None:
        return place.precision.bound(False, confidence)
    half = (1 + confidence) / 2  # two bounds at once
    found = precision_of(place.recall.bound(False, half), place.fpr.bound(True, half), rule.prevalence)
    return np.nan_to_num(found)


def _labels(tried: list[_Place], rule: Rule, n: int) -> TooFewLabels:
    """How many times as many images would show the precision, were the shares to stay as they are."""
    promise = with_confidence(f"a precision of {rule.target:g}", rule)
    hopeful = [place for place in tried if _value(place, rule) > rule.target]
    each = 1 - (1 - rule.confidence) / STARTS
    for factor in 2 ** np.arange(0.25, 12.1, 0.25):
        if any(_bound(_grown(place, float(factor)), rule, each) >= rule.target for place in hopeful):
            return TooFewLabels(promise, "labelled", n, math.ceil(n * factor))
    return TooFewLabels(promise, "labelled", n, None)


def _grown(place: _Place, factor: float) -> _Place:
    return _Place(place.threshold, *(_more(rate, factor) for rate in (place.fpr, place.recall, place.precision)))


def _more(rate: Rate, factor: float) -> Rate:
    """Return the same share of so many times as many images."""
    of = math.ceil(rate.of * factor)
    count = min(of, round(rate.count * of / rate.of)) if rate.of else 0
    return Rate.measured(count, of, confidence=rate.confidence, effective=rate.effective * factor if rate.of else None)
