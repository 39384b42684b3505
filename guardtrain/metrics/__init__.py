"""How good a guard is: metrics of many heads at once, metrics of pairs, and torchmetrics classes of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door
from guardtrain.metrics.functional import (
    accuracy,
    auroc,
    average_precision,
    brier,
    ece,
    f1,
    pair_both_right,
    pair_margin,
    pair_ranking,
    recall_at_fpr,
)
from guardtrain.metrics.report import METRICS, guard_metrics, sliced_guard_metrics
from guardtrain.metrics.slices import record_pair_index, record_pairs, record_slices

if TYPE_CHECKING:
    from guardtrain.metrics.collection import guard_metrics_collection
    from guardtrain.metrics.pairs import PairBothRight, PairMargin, PairRanking

__all__ = [
    "METRICS",
    "PairBothRight",
    "PairMargin",
    "PairRanking",
    "accuracy",
    "auroc",
    "average_precision",
    "brier",
    "ece",
    "f1",
    "guard_metrics",
    "guard_metrics_collection",
    "pair_both_right",
    "pair_margin",
    "pair_ranking",
    "recall_at_fpr",
    "record_pair_index",
    "record_pairs",
    "record_slices",
    "sliced_guard_metrics",
]

# torchmetrics takes seconds to import, and a curve needs the functions only.
__getattr__, __dir__ = door(
    __name__,
    {
        "PairBothRight": "pairs",
        "PairMargin": "pairs",
        "PairRanking": "pairs",
        "guard_metrics_collection": "collection",
    },
)
