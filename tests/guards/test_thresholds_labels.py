from __future__ import annotations

import json

import pytest
from scipy.stats import beta, binomtest

from guardtrain.errors import DataError
from guardtrain.guards.thresholds import errors_allowed
from guardtrain.guards.thresholds_labels import (
    TooFewLabels,
    flagged_to_guarantee,
    labels_to_conform,
    labels_to_guarantee,
    labels_to_know,
)


@pytest.mark.parametrize("share", [0.2, 0.05, 0.013, 0.001])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_fewest_labels_are_enough_and_one_less_is_not(share: float, confidence: float) -> None:
    n = labels_to_guarantee(share, confidence)
    assert errors_allowed(n, share, "guaranteed", confidence) == 0
    assert errors_allowed(n - 1, share, "guaranteed", confidence) == -1
    assert beta.ppf(confidence, 1, n) <= share < beta.ppf(confidence, 1, n - 1)
    n = labels_to_conform(share)
    assert errors_allowed(n, share, "conformal") == 0 and errors_allowed(n - 1, share, "conformal") == -1
    k = flagged_to_guarantee(1 - share, confidence)
    low = lambda k: binomtest(k, k, alternative="greater").proportion_ci(confidence, method="exact").low  # noqa: E731
    assert low(k) >= 1 - share > low(k - 1)


@pytest.mark.parametrize("share", [0.3, 0.05, 0.01, 0.6])
def test_with_enough_labels_the_interval_ends_below_twice_the_target(share: float) -> None:
    need = labels_to_know(share)
    for n in range(need, need + 60):
        k = errors_allowed(n, share, "point")
        assert binomtest(k, n).proportion_ci(0.95, method="exact").high <= 2 * share


def test_the_warning_says_how_many_more() -> None:
    warning = TooFewLabels("a false-positive rate of 0.05", "safe", 40, 59)
    assert warning.more == 19
    assert str(warning) == (
        "40 safe validation images are too few to promise a false-positive rate of 0.05: it takes about 59, that is "
        "19 more."
    )
    never = TooFewLabels("a precision of 0.99", "labelled", 40, None)
    assert never.more is None and "more labels do not help" in str(never)
    for one in (warning, never):
        assert TooFewLabels.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(DataError, match="lacks promise"):
        TooFewLabels.from_dict({"images": "safe", "have": 1, "need": 2})
