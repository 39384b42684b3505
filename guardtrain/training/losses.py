"""Losses over a bank: `(R, B)` logits in, one value a head out, so that no head's loss touches another's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from guardtrain.training.settings import PairSettings


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy, averaged with weights: `Σ w·BCE(logit, label) / Σ w`.

    Args:
        logits: `(R, B)` float.
        labels: `(R, B)`, 1 is unsafe.
        weights: `(R, B)`, zero for padding; class weights are part of it.

    Returns:
        `(R,)` float.
    """
    labels, weights = labels.to(logits.dtype), weights.to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="none")
    return losses.sum(1) / weights.sum(1).clamp_min(1e-12)


def pair_terms(unsafe: Tensor, safe: Tensor, pairs: PairSettings) -> Tensor:
    """What each pair adds to a loss: `centring·m² + logistic·softplus(-d)`, m the mean and d the difference of logits.

    Args:
        unsafe, safe: `(R, P)` logits of the two halves.
        pairs: the weights of the terms.

    Returns:
        `(R, P)`.
    """
    centred = pairs.centring * ((unsafe + safe) / 2).square()
    return centred + pairs.logistic * F.softplus(safe - unsafe) if pairs.logistic else centred


def class_weights(labels: Tensor, mode: str) -> Tensor:
    """`(2,)` float32: the weight of a safe and of an unsafe image among `labels` `(n,)`.

    `balanced` is n / (2·n_class), as scikit-learn's `compute_class_weight`; `none` is 1 for both.
    """
    if mode == "none":
        return torch.ones(2)
    counts = torch.bincount(labels.long(), minlength=2).float()
    return len(labels) / (2 * counts.clamp_min(1))


def squared_norms(parameters: Iterable[Tensor]) -> Tensor:
    """`(R,)` squared norm of each head's weights: the parameters of shape `(R, D, H)`, not the biases `(R, H)`."""
    return torch.stack([p.square().flatten(1).sum(1) for p in parameters if p.ndim == 3]).sum(0)
