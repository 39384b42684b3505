"""The metrics of one head as a torchmetrics collection, for a training loop that sees batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    BinarySensitivityAtSpecificity,
)
from torchmetrics.utilities import dim_zero_cat

from guardtrain.metrics.checks import checked_probs
from guardtrain.metrics.functional import ece
from guardtrain.metrics.pairs import PairBothRight, PairMargin, PairRanking


class RecallAtFPR(BinarySensitivityAtSpecificity):
    """Highest recall at a false-positive rate of at most `max_fpr`: torchmetrics' class without its threshold.

    >>> import torch
    >>> metric = RecallAtFPR(0.05)
    >>> metric.update(torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([1, 0, 1, 0]))
    >>> metric.compute().item()
    0.5
    """

    def __init__(self, max_fpr: float = 0.05, **kwargs: Any) -> None:
        # The least slack that keeps float32's 1 - fpr from missing a rate that is met exactly.
        super().__init__(min_specificity=1 - max_fpr - 1e-6, **kwargs)

    def compute(self) -> Tensor:
        """() float: the recall."""
        return super().compute()[0]


class CalibrationError(BinaryCalibrationError):
    """`guardtrain.metrics.ece`: torchmetrics' class with edges of bins that are the same on every processor.

    >>> import torch
    >>> metric = CalibrationError(n_bins=2)
    >>> metric.update(torch.tensor([0.25, 0.25, 0.75, 0.75]), torch.tensor([0, 0, 1, 1]))
    >>> metric.compute().item()
    0.25
    """

    def compute(self) -> Tensor:
        """() float64: the error."""
        return ece(dim_zero_cat(self.confidences)[None], dim_zero_cat(self.accuracies), self.n_bins)[0]


class GuardCollection(MetricCollection):
    """A collection that refuses logits, which torchmetrics would turn into probabilities unasked."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Update every metric; raises DataError unless the probabilities (first, or `preds=`) lie in [0, 1]."""
        checked_probs(args[0] if args else kwargs["preds"])
        super().update(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Update every metric and give the values of this batch; raises as `update` does."""
        checked_probs(args[0] if args else kwargs["preds"])
        return super().forward(*args, **kwargs)


def guard_metrics_collection(
    *, pairs: bool = True, threshold: float = 0.5, fpr: float = 0.05, prefix: str | None = None
) -> MetricCollection:
    """Every metric of `guardtrain.metrics.METRICS` for one head, updated by batches.

    Update it with `preds=` (B,) probabilities, `target=` (B,) labels and `pair_index=` (B,) pair numbers, negative for
    none (`record_pair_index`); all three by name, since most of the metrics do not take pair numbers. Values equal
    those of `guard_metrics`, except that torchmetrics gives 0 or 1 where only one class is there and we give NaN.

    Args:
        pairs: whether to have the pair metrics; without them `pair_index` is not needed.
        threshold: from which on an image is called unsafe, for f1, accuracy and pair_both_right.
        fpr: the false-positive rate that recall_at_fpr allows.
        prefix: put before the names, such as "val/".

    >>> import torch
    >>> metrics = guard_metrics_collection()
    >>> batch = {"preds": torch.tensor([0.2, 0.9]), "target": torch.tensor([0, 1]), "pair_index": torch.tensor([0, 0])}
    >>> metrics.update(**batch)
    >>> metrics.compute()["pair_both_right"].item()
    1.0
    """
    # torchmetrics calls unsafe what is above a threshold, we what is at it as well.
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    metrics: dict[str, Metric | MetricCollection] = {
        "auroc": BinaryAUROC(),
        "average_precision": BinaryAveragePrecision(),
        "f1": BinaryF1Score(threshold=below),
        "accuracy": BinaryAccuracy(threshold=below),
        "recall_at_fpr": RecallAtFPR(fpr),
        "brier": MeanSquaredError(),  # of probability and label, which is the Brier score
        "ece": CalibrationError(n_bins=15),
    }
    if pairs:
        metrics |= {
            "pair_both_right": PairBothRight(threshold),
            "pair_ranking": PairRanking(),
            "pair_margin": PairMargin(),
        }
    return GuardCollection(metrics, prefix=prefix)
