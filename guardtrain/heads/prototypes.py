"""Cosine prototypes: one or more directions a class, trained; started from text they are learned prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guardtrain.errors import ConfigError
from guardtrain.heads.anchors import TextAnchored, TextAnchors
from guardtrain.heads.unit_norm import UnitNormBank, unit_rows


@dataclass
class PrototypeHead(TextAnchored):
    """`logit(x) = log Σ_k exp(s·cos(x, p₁ₖ)) - log Σ_k exp(s·cos(x, p₀ₖ))`, K prototypes a class.

    With K = 1 it is `s·(cos(x, p₁) - cos(x, p₀))`. Started from text this is prompt learning in embedding space: Q16
    (Schramowski et al., FAccT 2022, arXiv 2202.06675, s = 100) and PerspectiveVision's prompt learning in UnsafeBench
    (Qu et al., CCS 2025, arXiv 2405.03486). Started from the class means of the run's own images it is a prototypical
    network on frozen features (Snell et al., NeurIPS 2017, arXiv 1703.05175), trained on.

    The first prototype of a class starts at its text anchor, where there are anchors; the others, or all without
    anchors, at the centres of a k-means of the class's own images (K = 1: their mean direction). The loss's L2 penalty
    does not apply, since lengths do not matter.

    Args:
        prototypes: K.
        text: prompts or anchors; neither starts from the images.
        scale: s at the start.
        learn_scale: whether s is trained, too, as its logarithm.

    >>> PrototypeHead(prototypes=2).bank(heads=3, dim=8)(torch.ones(5, 8)).shape
    torch.Size([3, 5])
    """

    name: str = "prototypes"
    prototypes: int = 1
    text: TextAnchors = field(default_factory=TextAnchors)
    scale: float = 100.0
    learn_scale: bool = False
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.prototypes < 1:
            raise ConfigError(f"head.prototypes must be >= 1; got {self.prototypes}.")
        if self.scale <= 0:
            raise ConfigError(f"head.scale must be > 0; got {self.scale:g}.")

    def bank(self, heads: int, dim: int) -> PrototypeBank:
        """R heads at random directions; `start` gives them better ones."""
        with_text = self.text.given or "_anchors" in self.__dict__
        anchors = (lambda: self.anchors(dim)) if with_text else None
        return PrototypeBank(heads, dim, self.prototypes, self.scale, self.learn_scale, anchors)


class PrototypeBank(UnitNormBank):
    """R prototype heads: `directions` `(R, 2, K, D)`, `[:, 0]` safe, and `log_scale` `(R, 1)`.

    Args:
        heads: R.
        dim: D.
        prototypes: K.
        scale: s at the start.
        learn_scale: whether it is a parameter.
        anchors: gives the text anchors `(2, D)` when training starts; None for no text.
    """

    log_scale: Tensor

    def __init__(
        self,
        heads: int,
        dim: int,
        prototypes: int,
        scale: float,
        learn_scale: bool,
        anchors: Callable[[], np.ndarray] | None,
    ) -> None:
        super().__init__(heads, dim)
        self.scale, self._anchors = scale, anchors
        self.directions = nn.Parameter(torch.empty(heads, 2, prototypes, dim))
        log_scale = torch.full((heads, 1), math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.reset(range(heads))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        return self._logits(self._cosines(x))

    def with_features(self, x: Tensor, step_seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """See `HeadBank.with_features`; the features are the cosines with all prototypes, H = 2K."""
        cosines = self._cosines(x)
        return self._logits(cosines), cosines[:, :, first:].permute(0, 2, 1, 3).flatten(2)

    def _cosines(self, x: Tensor) -> Tensor:
        """`(R, 2, B, K)` cosines of rows with prototypes."""
        x, directions = self.unit(x), self.unit(self.directions)
        if x.ndim == 3:
            return torch.einsum("rbd,rckd->rcbk", x, directions)
        flat = directions.reshape(-1, self.dim)  # (R*2*K, D)
        return (x @ flat.T).view(len(x), self.heads, 2, -1).permute(1, 2, 0, 3)

    def _logits(self, cosines: Tensor) -> Tensor:
        by_class = torch.logsumexp(self.log_scale.exp()[:, :, None, None] * cosines, dim=-1)  # (R, 2, B)
        return by_class[:, 1] - by_class[:, 0]

    def reset_head(self, r: int, generator: torch.Generator) -> None:
        self.directions[r] = F.normalize(torch.randn(self.directions[r].shape, generator=generator), dim=-1)
        self.log_scale.data[r] = math.log(self.scale)

    @torch.no_grad()
    def start(self, embeddings: Tensor, labels: Tensor, indices: Sequence[Tensor]) -> None:
        """Prototypes at the text anchors and at the centres of each head's own images; see `PrototypeHead`."""
        anchors = None if self._anchors is None else self._anchors()
        many = self.directions.shape[2]
        for r, index in enumerate(indices):
            x, y = unit_rows(embeddings[index].cpu().numpy()), labels[index].cpu().numpy()
            for c in (0, 1):
                text = np.zeros((0, self.dim)) if anchors is None else anchors[c : c + 1]
                own = np.concatenate([text, _centres(x[y == c], many - len(text))])
                self.directions[r, c, : len(own)] = torch.from_numpy(own).to(self.directions)


def _centres(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` centre directions of unit-norm `rows`; as many as there are different rows."""
    count = min(count, len(np.unique(rows, axis=0)))
    if count == 0:
        return rows[:0]
    if count == 1:
        return unit_rows(rows.mean(0, keepdims=True))
    from sklearn.cluster import KMeans  # heavy, and only for several prototypes

    return unit_rows(KMeans(count, n_init=1, random_state=0).fit(rows).cluster_centers_)
