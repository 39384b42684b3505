"""Tip-Adapter: a cache of training images beside the zero-shot text, training-free or with trained keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from guardtrain.errors import ConfigError
from guardtrain.heads.anchors import TextAnchored, TextAnchors
from guardtrain.heads.bank import HeadBank
from guardtrain.heads.direct import HeadData
from guardtrain.heads.examples import ExampleBank


@dataclass
class _TipSettings(TextAnchored):
    """Base of both kinds of Tip-Adapter."""

    name: str = "tip_adapter"
    text: TextAnchors = field(default_factory=TextAnchors)
    alpha: float = 1.0
    beta: float = 5.5
    scale: float = 100.0

    def __post_init__(self) -> None:
        for key in ("alpha", "beta", "scale"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"head.{key} must be > 0; got {getattr(self, key):g}.")


@dataclass
class TipAdapterHead(_TipSettings):
    """Tip-Adapter, training-free (Zhang et al., ECCV 2022, arXiv 2207.09519).

    `logit(x) = scale·(cos(x, t₁) - cos(x, t₀)) + α·Σ_i ±exp(-β·(1 - cos(x, k_i)))`, the sum over the run's training
    images, + for unsafe ones, each times its class weight.

    The published code tunes α and β on a validation set and starts at 1 and 5.5 (ImageNet, 16 images a class). Here
    the strength divides α, which pulls towards the text: 1 is `alpha`, and the candidates of a cross-validation do the
    tuning. The sum grows with the number of images, so large budgets want a larger strength.

    Args:
        text: prompts or anchors.
        alpha: weight of the cache at strength 1.
        beta: how quickly an example's say falls with distance.
        scale: CLIP's logit scale.

    >>> head = TipAdapterHead().anchored(np.eye(2, 3))
    >>> head.solve(HeadData.of(np.eye(4, 3) + 0.1, np.array([0, 1, 0, 1])), [1.0])[0](torch.eye(3)).shape
    torch.Size([1, 3])
    """

    convex: ClassVar[bool] = True

    def bank(self, heads: int, dim: int) -> TipBank:
        """R heads without examples."""
        return TipBank(heads, dim, self.beta)

    def solve(self, data: HeadData, strengths: Sequence[float]) -> list[HeadBank]:
        """One head for each strength; see the class."""
        text = _text_direction(self.anchors(data.x.shape[1]), self.scale)
        banks: list[HeadBank] = []
        for strength in strengths:
            bank = self.bank(1, data.x.shape[1])
            alpha = self.alpha / max(strength, 1e-6)
            bank.keep([(data.x, data.y, alpha * data.weights)])
            bank.text[:] = text
            banks.append(bank)
        return banks


@dataclass
class TipAdapterFHead(_TipSettings):
    """Tip-Adapter-F: the same with the keys trained, from the run's training images on (Zhang et al., ECCV 2022,
    arXiv 2207.09519).

    The published recipe is AdamW with a cosine decay, 20 epochs at learning rate 1e-3 and batches of 256; α and β are
    tuned afterwards, here they stay. Keys are not normalised again once they are trained, as published. The loss's L2
    penalty does not apply to keys: zero is no place for them to be drawn to.

    Args:
        text: prompts or anchors.
        alpha: weight of the cache.
        beta: how quickly an example's say falls with distance.
        scale: CLIP's logit scale.

    >>> TipAdapterFHead().bank(heads=2, dim=3)(torch.eye(3)).shape
    torch.Size([2, 3])
    """

    name: str = "tip_adapter_f"
    convex: ClassVar[bool] = False

    def bank(self, heads: int, dim: int) -> TipBank:
        """R heads whose examples come with `start`."""
        start = (self.alpha, lambda: _text_direction(self.anchors(dim), self.scale))
        return TipBank(heads, dim, self.beta, trainable=start)


class TipBank(ExampleBank):
    """R Tip-Adapter heads.

    Args:
        heads: R.
        dim: D.
        beta: see `TipAdapterHead`.
        trainable: for trained keys, what `start` needs: α, and a function that gives the text direction.
    """

    text: Tensor  # (R, D): scale·(t₁ - t₀)

    def __init__(
        self, heads: int, dim: int, beta: float, trainable: tuple[float, Callable[[], Tensor]] | None = None
    ) -> None:
        super().__init__(heads, dim, trainable=trainable is not None)
        self.beta, self._start = beta, trainable
        self.register_buffer("text", torch.zeros(heads, dim))

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        x = self.unit(x)
        if x.ndim == 3 and torch.is_grad_enabled():
            votes = self._by_class(self._affinities(x), self.mass[:, None])  # in training: one product for all heads
            return torch.einsum("rbd,rd->rb", x, self.text) + votes
        rows = [x if x.ndim == 2 else x[r] for r in range(self.heads)]
        # one head after the other: all at once would take R·N·M numbers
        parts = [
            own @ self.text[r] + self._by_class(self._affinity(self.similarities(own, r)), self.mass[r])
            for r, own in enumerate(rows)
        ]
        return torch.stack(parts)

    def with_features(self, x: Tensor, step_seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """See `HeadBank.with_features`; the features are the affinities to all examples, H = 2M, 0 for padding."""
        x = self.unit(x)
        affinities = self._affinities(x)
        logits = torch.einsum("rbd,rd->rb", x, self.text) + self._by_class(affinities, self.mass[:, None])
        return logits, (affinities[:, first:] * (self.mass[:, None] != 0)).flatten(2)

    def start(self, embeddings: Tensor, labels: Tensor, indices: Sequence[Tensor]) -> None:
        """Keys from each head's training images, and the text; nothing where the keys are not trained."""
        if self._start is None:
            return
        alpha, text = self._start
        parts = [(embeddings[index].cpu().numpy(), labels[index].cpu().numpy()) for index in indices]
        self.keep([(x, y, np.full(len(y), alpha)) for x, y in parts])
        self.text[:] = text()

    @property
    def parameters_per_image(self) -> int:
        """D with trained keys, for the larger of the two classes twice over."""
        return 0 if self._start is None else self.dim

    def _affinities(self, x: Tensor) -> Tensor:
        """Affinities `(R, B, 2, M)` of rows of unit norm `(R, B, D)` to the examples."""
        return self._affinity(torch.einsum("rbd,rcmd->rbcm", x, self.keys))

    def _affinity(self, cosines: Tensor) -> Tensor:
        return torch.exp(self.beta * (cosines - 1))

    @staticmethod
    def _by_class(affinities: Tensor, mass: Tensor) -> Tensor:
        """The cache's part of the logit: affinities `(..., 2, M)` to `(...)`."""
        by_class = (affinities * mass).sum(-1)
        return by_class[..., 1] - by_class[..., 0]


def _text_direction(anchors: np.ndarray, scale: float) -> Tensor:
    return torch.from_numpy(scale * (anchors[1] - anchors[0]))
