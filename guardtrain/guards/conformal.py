"""Three-way decisions: unsafe, safe, or left to people, with a guarantee for either error.

Either threshold is one for a rate of one class, see `guardtrain.guards.thresholds`. With the method `conformal` that is
split-conformal prediction, class by class (Vovk, Conditional validity of inductive conformal predictors, 2013; Sadinle,
Lei and Wasserman, JASA 114, 2019): the set of labels that cannot be ruled out holds the right one with probability
1 - α₀ for safe and 1 - α₁ for unsafe images, whatever the scores, over validation sets and new images. Ruled out is
"safe" from the `upper` threshold on, "unsafe" below the `lower`; where both remain an image is for review. Where the
classes are so far apart that the two thresholds cross, one threshold between them keeps both guarantees.
"""

from __future__ import annotations

import numpy as np

from guardtrain.guards.calibration_inputs import Scored, require_classes, scored
from guardtrain.guards.operating_points import ThreeWay
from guardtrain.guards.thresholds import rate_cut
from guardtrain.guards.thresholds_rates import Rate, effective_number
from guardtrain.guards.thresholds_rules import Rule


def three_way(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    false_alarms: float = 0.05,
    misses: float = 0.05,
    method: str = "guaranteed",
    confidence: float = 0.95,
    groups: np.ndarray | None = None,
    name: str = "review",
) -> ThreeWay:
    """Two thresholds, such that few safe images are called unsafe and few unsafe ones safe.

    Args:
        scores: (N,) finite, higher is more unsafe, of images that the head was not trained on.
        labels: (N,) 0 safe, 1 unsafe; both must be there.
        false_alarms: share of safe images that may be called unsafe.
        misses: share of unsafe images that may be called safe.
        method: `guaranteed` keeps both shares with `confidence` each on whatever validation set one has, `conformal` on
            average over validation sets, `point` on validation itself.
        confidence: of the guarantee and of the intervals; see `Rule`.
        groups: (N,) names; images of one group count as the same. None: each is its own.
        name: of the point.

    Raises:
        ConfigError: shares that are not between 0 and 1, an unknown method.
        DataError: scores that are not finite, other labels, one class only.

    >>> point = three_way(np.arange(8.0), np.array([0, 0, 0, 1, 0, 1, 1, 1]), false_alarms=0.2, misses=0.2)
    >>> point.decide(np.array([2.0, 3.5, 5.0])).tolist()
    [0, 2, 1]
    """
    images = scored(scores, labels, groups)
    require_classes(images, (0, 1), "A three-way decision")
    unsafe_rule = Rule("fpr", false_alarms, method, confidence)
    safe_rule = Rule("recall", 1 - misses, method, confidence)
    above, below = rate_cut(images, unsafe_rule), rate_cut(images, safe_rule)
    lower, upper = below.threshold, above.threshold
    alarms, missed = above.called, below.called.complement()
    notes = above.notes + below.notes
    if lower > upper:
        lower = upper = (lower + upper) / 2
        notes += ("One threshold keeps both shares: nothing is left for review.",)
        # either error became rarer: its upper end stays, the lower is that of what is left
        alarms = _fewer(alarms, int((images.of(0) >= upper).sum()))
        missed = _fewer(missed, int((images.of(1) < lower).sum()))
    safe, unsafe = (_between(images, label, lower, upper, confidence) for label in (0, 1))
    warnings = above.warnings + below.warnings
    return ThreeWay(name, unsafe_rule, safe_rule, lower, upper, alarms, missed, safe, unsafe, warnings, notes)


def _fewer(rate: Rate, count: int) -> Rate:
    return Rate.measured(
        count,
        rate.of,
        confidence=rate.confidence,
        effective=rate.effective,
        at_least=min(count, rate.at_least),
        at_most=rate.at_most,
    )


def _between(images: Scored, label: int, lower: float, upper: float, confidence: float) -> Rate:
    """The share of one class between the thresholds."""
    mine = images.labels == label
    own = images.scores[mine]
    worth = effective_number(np.unique(images.group[mine], return_inverse=True)[1])
    count = int(((own >= lower) & (own < upper)).sum())
    return Rate.measured(count, len(own), confidence=confidence, effective=worth)
