"""Pair metrics as torchmetrics classes, for one head and batches that may hold the two halves of a pair apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from guardtrain.errors import DataError
from guardtrain.metrics.checks import checked_labels, checked_probs
from guardtrain.metrics.functional import both_right_of, log_odds, margin_of, ranking_of


class _PairMetric(Metric):
    """Base of the pair metrics: keep halves as they come, join them by the number of their pair at the end.

    The states are lists that are concatenated over batches and over processes, so a pair counts once both its halves
    were seen, wherever that was. A pair of which only one half was seen does not count (a sanity check or a limit on
    batches may cut pairs apart). An image seen twice, as a distributed sampler does to fill the last batch, enters with
    the mean of its probabilities. Without a single whole pair the value is NaN.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    probs: list[Tensor]
    labels: list[Tensor]
    pair_index: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for state in ("probs", "labels", "pair_index"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, pair_index: Tensor) -> None:
        """Take in a batch.

        Args:
            preds: (B,) float, probabilities in [0, 1].
            target: (B,) 0 safe, 1 unsafe.
            pair_index: (B,) int, the number of the pair an image belongs to, negative for none (`record_pair_index`).

        Raises:
            DataError: probabilities outside [0, 1], other labels, shapes or types that do not fit.
        """
        if preds.ndim != 1 or not preds.shape == target.shape == pair_index.shape:
            raise DataError(
                "Pair metrics take (B,) probabilities, labels and pair numbers; they have shapes "
                f"{tuple(preds.shape)}, {tuple(target.shape)} and {tuple(pair_index.shape)}."
            )
        if pair_index.is_floating_point() or pair_index.dtype == torch.bool:
            raise DataError(f"Pair numbers must be whole numbers; they are {pair_index.dtype}.")
        probs, labels = checked_probs(preds), checked_labels(target)
        paired = pair_index >= 0
        self.probs.append(probs[paired].detach())
        self.labels.append(labels[paired])
        self.pair_index.append(pair_index[paired].long())

    def compute(self) -> Tensor:
        """() float64: the mean over whole pairs."""
        if not self.pair_index:
            return torch.tensor(torch.nan, dtype=torch.float64, device=self.device)
        probs, labels = dim_zero_cat(self.probs), dim_zero_cat(self.labels)
        names, pair = torch.unique(dim_zero_cat(self.pair_index), return_inverse=True)
        half = 2 * pair + labels
        seen = torch.zeros(2 * len(names), dtype=torch.float64, device=probs.device)
        total = torch.zeros_like(seen)
        seen.scatter_add_(0, half, torch.ones_like(half, dtype=torch.float64))
        total.scatter_add_(0, half, probs.double())
        safe, unsafe = (total / seen).reshape(-1, 2).unbind(1)
        whole = ~(safe.isnan() | unsafe.isnan())
        return self._terms(safe[whole], unsafe[whole]).mean()

    def _terms(self, safe: Tensor, unsafe: Tensor) -> Tensor:
        raise NotImplementedError


class PairBothRight(_PairMetric):
    """Share of pairs with the unsafe half called unsafe (p >= threshold) and the safe half not.

    The functional form is `guardtrain.metrics.pair_both_right`.

    >>> metric = PairBothRight()
    >>> metric.update(torch.tensor([0.9, 0.2]), torch.tensor([1, 0]), torch.tensor([7, 7]))
    >>> metric.compute().item()
    1.0
    """

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def _terms(self, safe: Tensor, unsafe: Tensor) -> Tensor:
        return both_right_of(safe, unsafe, self.threshold)


class PairRanking(_PairMetric):
    """Share of pairs whose unsafe half scores higher, ties counting half.

    The functional form is `guardtrain.metrics.pair_ranking`.

    >>> metric = PairRanking()
    >>> metric.update(torch.tensor([0.9, 0.8]), torch.tensor([1, 0]), torch.tensor([0, 0]))
    >>> metric.compute().item()
    1.0
    """

    def _terms(self, safe: Tensor, unsafe: Tensor) -> Tensor:
        return ranking_of(safe, unsafe)


class PairMargin(_PairMetric):
    """Mean difference of the logits of the unsafe and the safe half, probabilities clipped to [1e-6, 1 - 1e-6].

    The functional form is `guardtrain.metrics.pair_margin`.

    >>> metric = PairMargin()
    >>> metric.update(torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), torch.tensor([0, 0]))
    >>> round(metric.compute().exp().item(), 6)
    3.0
    """

    def _terms(self, safe: Tensor, unsafe: Tensor) -> Tensor:
        return margin_of(log_odds(safe), log_odds(unsafe))
