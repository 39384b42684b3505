"""What a user can set about fine-tuning; light, so that the config schema can import it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guardtrain.errors import ConfigError

AUGMENTATIONS = ("none", "flip", "crop")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass
class LoraSettings:
    """Low-rank adapters (Hu et al., ICLR 2022, arXiv 2106.09685) on the image tower, trained with a linear head.

    The head starts at the linear probe of the frozen encoder, so that its first gradients do not distort the features
    (LP-FT: Kumar et al., ICLR 2022, arXiv 2202.10054).

    Args:
        rank: r of the adapters.
        alpha: their scale is alpha / rank.
        dropout: on the adapters' inputs.
        targets: a regular expression that finds the layers to adapt by their names in the image tower, such as
            `q_proj|v_proj`; null adapts every linear and convolutional layer that an adapter can reach.
        lr: peak learning rate of the adapters; it warms up linearly and decays by a cosine to zero.
        head_lr: the same of the head, on inputs standardised by it.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: decoupled, of the adapters.
        steps: optimisation steps at most.
        batch_size: images a step; a run with fewer sees all of them. Pair losses see an eighth as many whole pairs on
            top.
        folds: one of so many folds of the run's own images (groups whole) is held out, and its loss decides at which
            step training stops; 0, or a run of fewer than `selection.smallest` images, holds out none and takes all the
            steps.
        evaluate_every: steps between two evaluations of the held-out loss, each with a checkpoint to resume from.
        patience: evaluations without improvement after which training stops.
        augment: `none`, `flip` (mirrored at random), or `crop` (that, and random parts of the image). A mirrored sign
            or word may have another label.
        precision: of the arithmetic, in Lightning's words: `32-true`, `bf16-mixed` or `16-mixed`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str | None = None
    lr: float = 0.001
    head_lr: float = 0.003
    warmup: float = 0.03
    weight_decay: float = 0.0
    steps: int = 150
    batch_size: int = 64
    folds: int = 5
    evaluate_every: int = 15
    patience: int = 4
    augment: str = "none"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name, allowed in (("augment", AUGMENTATIONS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"lora.{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")
        for name in ("alpha", "lr", "head_lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"lora.{name} must be > 0; got {getattr(self, name):g}.")
        for name in ("rank", "steps", "batch_size", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"lora.{name} must be >= 1; got {getattr(self, name)}.")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"lora.{name} is a share in [0, 1); got {getattr(self, name):g}.")
        if self.weight_decay < 0:
            raise ConfigError(f"lora.weight_decay must be >= 0; got {self.weight_decay:g}.")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"lora.folds is 0 (nothing held out) or at least 2; got {self.folds}.")
        if self.targets is not None:
            try:
                re.compile(self.targets)
            except re.error as error:
                raise ConfigError(f"lora.targets is '{self.targets}', no regular expression: {error}.") from None
