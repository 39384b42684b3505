"""Losses over a bank: `(R, B)` logits in, one value a head out, so that no head's loss touches another's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from guardtrain.training.settings import PairSettings

NOWHERE = -1e9  # a logit of what is not there: unlike -inf it has a gradient (zero) where nothing is


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
    """Return each pair's term: `centring·m² + logistic·softplus(-d)`, m the mean and d the difference of logits.

    Args:
        unsafe, safe: `(R, P)` logits of the two halves.
        pairs: the weights of the terms.

    Returns:
        `(R, P)`.
    """
    centred = pairs.centring * ((unsafe + safe) / 2).square()
    return centred + pairs.logistic * F.softplus(safe - unsafe) if pairs.logistic else centred


def pair_slopes(unsafe: Tensor, safe: Tensor, pairs: PairSettings) -> tuple[Tensor, Tensor]:
    """The derivatives of `pair_terms` in the logits of the unsafe and of the safe halves."""
    centred = (unsafe + safe).mul_(pairs.centring / 2)
    apart = torch.sigmoid(safe - unsafe).mul_(pairs.logistic) if pairs.logistic else torch.zeros_like(centred)
    return centred - apart, centred + apart


def contrastive_terms(unsafe: Tensor, safe: Tensor, there: Tensor, temperature: float) -> Tensor:
    """PairCFR's contrastive loss (Qiu et al., ACL 2024, arXiv 2406.06633) among the halves of pairs.

    With s the cosine of two halves' features over the temperature, P(i) the other halves of i's class and N(i) those of
    the other class, i's own other half among them, a half counts
    `-mean_{p in P(i)} log(exp(s_ip) / (exp(s_ip) + sum_{k in N(i)} exp(s_ik)))`, or nothing where P(i) is empty.

    Args:
        unsafe, safe: `(R, P, H)` features of the two halves.
        there: `(R, P)` bool; pairs that are padding are neither drawn nor pushed.
        temperature: τ.

    Returns:
        `(R, P)`, the mean of a pair's two halves.
    """
    # where all features are zero, ReLU passes no gradient on; with eps the gradient stays finite until there
    unsafe, safe = (F.normalize(half, dim=-1, eps=1e-6) for half in (unsafe, safe))
    across = unsafe @ safe.mT / temperature  # (R, P, P)
    positive = there[:, None, :] & ~torch.eye(there.shape[1], dtype=torch.bool, device=there.device)
    counts = positive.sum(2).clamp_min(1)
    terms = []
    for half, others in ((unsafe, across), (safe, across.mT)):
        pushed = others.masked_fill(~there[:, None, :], NOWHERE).logsumexp(2, keepdim=True)
        drawn = F.softplus(pushed - half @ half.mT / temperature)
        terms.append((drawn * positive).sum(2) / counts)
    return (terms[0] + terms[1]) / 2


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
