"""Thresholds for a target: false-positive rate, recall, precision or least cost, with what validation can promise.

A threshold for a false-positive rate (or recall) is an order statistic of the scores of one class. Which one is decided
by the number of images and the rule, before a score is looked at: with n safe images and k false alarms allowed the
threshold stands just above the (k+1)-th highest safe score. So the intervals of both classes' rates are exact; see
`guardtrain.guards.thresholds_rates`. k depends on the method:

    guaranteed   the largest for which the quantile of Beta(k + 1, n - k) at the confidence is at most the target (the
                 umbrella algorithm of Tong, Feng and Li, Science Advances 4, 2018)
    conformal    ⌊target · (n + 1)⌋ - 1, for which its mean is at most the target
    point        ⌊target · n⌋, the most that meets the target on validation itself

A target that is guaranteed is the usual one: at one that is met on validation itself, about every other validation set
leads to a threshold that exceeds it. Where n is too small to guarantee it for any k, none is allowed to err, which
comes closest; then the point does not call itself guaranteed, and says how many labels are missing.

Images that share the score at the cut fall on the side that keeps the promise: the threshold goes above all of them
for a false-positive rate, below all of them for recall. Then fewer than k err. The far end of the interval stays at k,
and the near end is taken at how many do err.

A threshold for precision or least cost is picked by how it looks. It is picked among at most 47 places in the order of
all images, evenly spaced in the logit of the share that is called unsafe and fixed beforehand, and the confidence of
its intervals is shared among them (Bonferroni): they hold for every place at once, so also for the one picked. For
precision at such a place the count is exactly binomial. A guaranteed precision is one that fixed-sequence tests from
four starts refute to be lower ("learn then test", Angelopoulos, Bates, Candès, Jordan and Lei, 2021).

Images of one group (pairs, near duplicates) are no independent evidence: counts are scaled to the effective number of
images of their class. What remains: a pair's halves are on both sides, so that recall at a threshold chosen on safe
images is not quite independent of it. Simulations show no loss of coverage.

Thresholds are best chosen on logits: float32 probabilities tie near 0 and 1, isotonic calibration ties more, and on
logits it does not matter that the calibrator was fitted on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.calibration_inputs import Scored, require_classes, scored
from guardtrain.guards.operating_points import NOISE, OperatingPoint, OperatingPoints
from guardtrain.guards.thresholds_cut import (
    beside,
    called_rate,
    class_groups,
    flagged_precision,
    group_notes,
    with_confidence,
)
from guardtrain.guards.thresholds_labels import (
    WITHIN,
    TooFewLabels,
    labels_to_conform,
    labels_to_guarantee,
    labels_to_know,
)
from guardtrain.guards.thresholds_picked import picked_point
from guardtrain.guards.thresholds_rates import Rate, clopper_pearson, effective_number
from guardtrain.guards.thresholds_rules import Rule

DEFAULT_RULES = {"strict": Rule("fpr", 0.1), "balanced": Rule("fpr", 0.05), "permissive": Rule("fpr", 0.01)}
DEFAULT_POINT = "balanced"


def operating_point(
    scores: np.ndarray, labels: np.ndarray, rule: Rule, *, groups: np.ndarray | None = None, name: str = "custom"
) -> OperatingPoint:
    """The threshold that a rule leads to on validation.

    Args:
        scores: (N,) finite, higher is more unsafe: logits for choice; of images that the head was not trained on.
        labels: (N,) 0 safe, 1 unsafe.
        rule: what is wanted.
        groups: (N,) names; images of one group count as the same. None: each is its own.
        name: of the point.

    Raises:
        DataError: scores that are not finite, other labels, or none of the class that the rule needs.

    >>> point = operating_point(np.arange(200.0), np.repeat([0, 1], 100), Rule("fpr", 0.05))
    >>> point.fpr.count, point.recall.value, point.promised
    (1, 1.0, True)
    >>> operating_point(np.arange(80.0), np.repeat([0, 1], 40), Rule("fpr", 0.05)).chosen_for
    'false-positive rate ≤ 0.05 (19 safe images short)'
    """
    images = scored(scores, labels, groups)
    if rule.kind in ("precision", "cost"):
        require_classes(images, (0, 1), f"A threshold for {rule.kind}")
        return picked_point(images, rule, name)
    upper = rule.kind == "fpr"
    require_classes(images, (0 if upper else 1,), f"A threshold for {rule.kind}")
    cut = rate_cut(images, rule)
    fpr, recall = (
        called_rate(images, 0, cut.threshold, rule.confidence),
        called_rate(images, 1, cut.threshold, rule.confidence),
    )
    if upper:
        fpr = cut.called
    else:
        recall = cut.called
    flagged = flagged_precision(images, cut.threshold, rule.confidence)
    bound = (fpr if upper else recall).bound(upper, rule.confidence)
    return OperatingPoint(name, rule, cut.threshold, fpr, recall, flagged, bound, cut.warnings, cut.notes)


def operating_points(
    scores: np.ndarray,
    labels: np.ndarray,
    rules: Mapping[str, Rule] | None = None,
    *,
    groups: np.ndarray | None = None,
    default: str | None = None,
) -> OperatingPoints:
    """An operating point for each named rule, in their order; each interval and guarantee is for its point alone.

    Args:
        scores, labels, groups: as for `operating_point`.
        rules: None for `DEFAULT_RULES`: `strict`, `balanced` and `permissive` call at most 10, 5 and 1 % of safe images
            unsafe.
        default: name of the point that is used where none is asked for; None for `balanced`, else the first.

    Raises:
        ConfigError: no rules, or a default that is none of them.
        DataError: as of `operating_point`.
    """
    wanted = DEFAULT_RULES if rules is None else rules
    points = tuple(operating_point(scores, labels, rule, groups=groups, name=name) for name, rule in wanted.items())
    chosen = (DEFAULT_POINT if DEFAULT_POINT in wanted else "") if default is None else default
    return OperatingPoints(points, chosen)


def category_points(
    scores: np.ndarray,
    labels: np.ndarray,
    categories: np.ndarray,
    rule: Rule,
    *,
    groups: np.ndarray | None = None,
) -> dict[str, OperatingPoint]:
    """An operating point for each category, from its images and the safe images of no category.

    For guards that are asked about one category at a time. Each interval is for its category alone: of twenty at 95 %
    one is expected to miss.

    Args:
        scores, labels, groups: as for `operating_point`.
        categories: (N,) names; None or '' for none.

    Returns:
        Points named as their categories, in alphabetical order.

    Raises:
        ConfigError: no image has a category.
        DataError: a category without images of the class that the rule needs, and as of `operating_point`.
    """
    names = _categories(categories, scores)
    found = sorted(set(names[names != ""].tolist()))
    if not found:
        raise ConfigError("No validation image has a category: choose one threshold for all.")
    y, out = np.asarray(labels), {}
    for category in found:
        rows = (names == category) | ((names == "") & (y == 0))
        own = None if groups is None else np.asarray(groups)[rows]
        try:
            out[category] = operating_point(np.asarray(scores)[rows], y[rows], rule, groups=own, name=category)
        except DataError as error:
            raise DataError(f"Category '{category}': {error}") from error
    return out


@dataclass(frozen=True)
class Cut:
    """A threshold for a rate of one class.

    Args:
        threshold: images from it on are called unsafe.
        called: share of the class that is called unsafe.
        warnings, notes: as of `OperatingPoint`.
    """

    threshold: float
    called: Rate
    warnings: tuple[TooFewLabels, ...]
    notes: tuple[str, ...]


def rate_cut(images: Scored, rule: Rule) -> Cut:
    """The order statistic that a rule of kind fpr or recall takes, see the module."""
    upper = rule.kind == "fpr"
    share = rule.target if upper else 1 - rule.target
    label = 0 if upper else 1
    own = images.of(label)[:: -1 if upper else 1]  # from the side that errs
    n, worth = len(own), effective_number(class_groups(images, label))
    k = max(0, errors_allowed(n, share, rule.method, rule.confidence, worth))
    threshold = beside(images.scores, own[k], upward=upper)
    errs = int((own >= threshold).sum() if upper else (own < threshold).sum())
    wrong = Rate.measured(
        errs, n, confidence=rule.confidence, effective=worth, at_least=min(errs, k), at_most=max(errs, k)
    )
    notes = group_notes(n, worth, ("safe", "unsafe")[label])
    if errs < k and (tied := int((own == own[k]).sum())) > 1:
        notes += (f"{tied} images share the score at the threshold: {errs} of {k} errors allowed are made.",)
    called = wrong if upper else wrong.complement()
    return Cut(threshold, called, _too_few(rule, share, label, n, worth), notes)


def errors_allowed(n: int, share: float, method: str, confidence: float = 0.95, effective: float | None = None) -> int:
    """How many of n images of a class may be on the wrong side (k); -1 where n is too small for the method.

    Args:
        share: of the class that may be on the wrong side.
        method: one of `METHODS`, see the module.
        confidence: of `guaranteed`.
        effective: how many independent images the n are worth; None for n.

    >>> [errors_allowed(100, 0.05, method) for method in ("point", "conformal", "guaranteed")]
    [5, 4, 1]
    """
    if method == "point":
        return math.floor(share * n + NOISE)  # 0.1 * 30 allows 3
    worth = float(n if effective is None else effective)
    scale = worth / n
    if method == "conformal":
        return max(-1, math.floor((share * (worth + 1) - 1) / scale + NOISE))
    low, high = -1, n  # low is allowed, high is not
    while high - low > 1:
        k = (low + high) // 2
        enough = clopper_pearson(k, k, n, worth, 2 * confidence - 1)[1] <= share + NOISE
        low, high = (k, high) if enough else (low, k)
    return low


def _too_few(rule: Rule, share: float, label: int, n: int, worth: float) -> tuple[TooFewLabels, ...]:
    """The warning where n images of a class cannot promise the rule's rate."""
    promise = f"a false-positive rate of {rule.target:g}" if label == 0 else f"a recall of {rule.target:g}"
    if rule.method == "guaranteed":
        need, promise = labels_to_guarantee(share, rule.confidence), with_confidence(promise, rule)
    else:
        need, worst = labels_to_know(share, rule.confidence), min(1.0, WITHIN * share)
        promise = with_confidence(f"{promise}, at worst {worst if label == 0 else 1 - worst:.3g},", rule)
        if rule.method == "conformal":
            need = max(need, labels_to_conform(share))
    if worth >= need - NOISE:
        return ()
    return (TooFewLabels(promise, ("safe", "unsafe")[label], n, math.ceil(need * n / worth - NOISE)),)


def _categories(categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) strings, '' for none."""
    names = np.array(["" if name is None or name != name else str(name) for name in categories])
    if names.shape != np.shape(scores):
        raise DataError(f"Categories must be (N,) like the scores, {np.shape(scores)}; they have shape {names.shape}.")
    return names
