"""What a training is but for its data: head, loss, optimizer, choice of hyper-parameters and trainer, in agreement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from guardtrain.errors import ConfigError
from guardtrain.heads import DirectHead, HeadBank, LinearHead
from guardtrain.training.settings import BEST, LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

PAIR_AWARE = " (pair-aware)"  # what results add to a head's name where its training knows of pairs


class HeadDefinition(Protocol):
    """Protocol of what a head's config names: it builds a bank of R untrained heads on D-dimensional embeddings."""

    name: str
    convex: ClassVar[bool]

    def bank(self, heads: int, dim: int) -> HeadBank: ...


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything about training that is not the data."""

    head: HeadDefinition
    loss: LossSettings
    optimizer: OptimizerSettings
    selection: SelectionSettings
    trainer: TrainerSettings

    def __post_init__(self) -> None:
        """Settle what the loss leaves to the head; refuse what the head, or the way it is found, knows no use for.

        Raises:
            ConfigError: a pair loss for heads trained by steps, and the head is linear, solved or found by L-BFGS;
                noise, and it is solved or found by L-BFGS.
        """
        if self.loss.pairs.gradient is None:
            by_head = 0.0 if self.direct or self.full_batch else getattr(self.head, "pair_gradient", 0.0)
            settled = replace(self.loss, pairs=replace(self.loss.pairs, gradient=by_head))
            object.__setattr__(self, "loss", settled)  # the one way to do so where a dataclass is frozen
        of_linear = {
            "contrastive": "it learns no features that the loss could shape",
            "gradient": "its gradient is the same everywhere; loss.pairs.logistic turns it to the pairs' differences",
        }
        for name, why in of_linear.items():
            weight = getattr(self.loss.pairs, name)
            if weight and (self.direct or self.full_batch or isinstance(self.head, LinearHead)):
                if self.direct:
                    why = "it is solved, not trained"
                elif not isinstance(self.head, LinearHead):
                    why = "L-BFGS finds no optimum of it (optimizer.kind=adamw trains with it)"
                raise ConfigError(
                    f"loss.pairs.{name} is {weight:g}, and the head '{self.head.name}' cannot use it: {why}. Set "
                    f"loss.pairs.{name}=0, or take a head that is trained by steps: mlp, prototypes, tip_adapter_f."
                )
        if self.optimizer.noise and (self.direct or self.full_batch):
            how = "is solved" if self.direct else "is found by L-BFGS"
            raise ConfigError(
                f"optimizer.noise is {self.optimizer.noise:g}, and the head '{self.head.name}' {how}, not trained by "
                "steps. Set optimizer.noise=0, or take optimizer=adamw with a head that is trained (mlp, linear)."
            )

    @property
    def label(self) -> str:
        """Return what the results table calls it: the head, and whether its training knows of pairs."""
        aware = self.loss.pairs.active and not self.direct
        return f"{self.head.name}{PAIR_AWARE}" if aware else self.head.name

    @property
    def direct(self) -> bool:
        """Whether the head is solved, not trained."""
        return isinstance(self.head, DirectHead)

    @property
    def reads_pairs(self) -> bool:
        """Whether training looks at which image is the other half of which: else shuffled partners change nothing."""
        return bool(getattr(self.head, "reads_pairs", False)) if self.direct else self.loss.pairs.needs_halves

    @property
    def full_batch(self) -> bool:
        """Whether every step sees all of a run's images (L-BFGS)."""
        kind = self.optimizer.kind
        return not self.direct and (kind == "lbfgs" or (kind == "auto" and self.head.convex))

    @property
    def linear_optimum(self) -> bool:
        """Whether heads are found by `LinearOptimum`, on rows that they share."""
        return self.full_batch and isinstance(self.head, LinearHead)

    @property
    def steps(self) -> int:
        """Most steps of the optimizer: its evaluations (L-BFGS) or its steps (AdamW)."""
        return self.optimizer.iterations if self.full_batch else self.optimizer.steps

    @property
    def rule(self) -> str:
        """How the penalty of a run comes about, in words."""
        chosen, given = self.selection, self.loss.l2
        fixed = "1" if self.direct else "max(0.3, 128 / n)"
        fixed = f"l2 = {fixed if given is None else f'{given:g}'}"
        if chosen.method != "cross_validation":
            return f"{'strength' if self.direct else 'penalty'} {fixed}, whatever the images"
        if not chosen.l2:
            return fixed
        best = "the highest AUROC" if self.linear_optimum else "the lowest log-loss"
        how = best if chosen.rule == BEST else "the strongest within a standard error of the best"
        listed = ", ".join(f"{value:g}" for value in sorted(chosen.l2))
        folds = f"l2 of {listed} by {chosen.folds} folds of a run's own images, {how}"
        return f"{folds}; below {chosen.smallest} images {fixed}"

    def chooses(self, images: int) -> bool:
        """Whether a run with so many images chooses its hyper-parameters by cross-validation."""
        return self.selection.method == "cross_validation" and images >= self.selection.smallest
