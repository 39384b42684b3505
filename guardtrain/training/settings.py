"""What a user can set about training; light, so that the config schema can import it."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardtrain.errors import ConfigError

CLASS_WEIGHTS = ("none", "balanced")
OPTIMIZERS = ("auto", "lbfgs", "adamw")
SELECTIONS = ("fixed", "cross_validation")


@dataclass
class LossSettings:
    """Binary cross-entropy with an L2 penalty: `mean_i w_i·BCE_i + l2 / (2n) · ‖weights‖²`.

    Args:
        l2: strength of the penalty on the weights (not the biases), on inputs standardised by the head: scikit-learn's
            1/C. It counts as so many images' worth of prior, so its weight falls as the budget n grows.
        class_weight: `balanced` weighs both classes to the same mass within each run's training images
            (scikit-learn's definition); `none` counts every image once.
    """

    class_weight: str = "balanced"
    l2: float = 1.0

    def __post_init__(self) -> None:
        if self.l2 < 0:
            raise ConfigError(f"loss.l2 must be >= 0; got {self.l2:g}.")
        if self.class_weight not in CLASS_WEIGHTS:
            raise ConfigError(f"loss.class_weight is '{self.class_weight}'; allowed: {', '.join(CLASS_WEIGHTS)}.")


@dataclass
class OptimizerSettings:
    """How the loss is minimised.

    Args:
        kind: `lbfgs` finds the optimum of convex heads on all images of a run at once; `adamw` takes steps on batches,
            with a cosine decay to zero; `auto` is lbfgs for convex heads (linear) and adamw for the rest.
        iterations: lbfgs: iterations at most.
        tolerance: lbfgs: a head is done when no entry of its gradient is larger.
        steps: adamw: optimisation steps.
        lr: adamw: peak learning rate, on inputs standardised by the head.
        weight_decay: adamw: decoupled weight decay, beside the loss's L2 penalty; biases are not decayed.
        batch_size: adamw: images of its own each head sees in a step; a run with fewer images sees all of them.
    """

    kind: str = "auto"
    iterations: int = 1000
    tolerance: float = 1e-5
    steps: int = 300
    lr: float = 0.003
    weight_decay: float = 0.0
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise ConfigError(f"optimizer.kind is '{self.kind}'; allowed: {', '.join(OPTIMIZERS)}.")
        for name in ("lr", "tolerance"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"optimizer.{name} must be > 0; got {getattr(self, name):g}.")
        for name, least in (("weight_decay", 0.0), ("steps", 1), ("iterations", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"optimizer.{name} must be >= {least:g}; got {getattr(self, name):g}.")


@dataclass
class SelectionSettings:
    """How hyper-parameters and the number of steps are chosen, always inside a run's own training images.

    Args:
        method: `fixed` trains once with the optimizer's settings on all images of the run (the choice for tiny
            budgets); `cross_validation` trains every candidate on group-safe stratified folds of the run's
            images, takes the one with the lowest mean held-out log-loss (with adamw at its best step: early
            stopping), and trains it on all images (for that many steps).
        folds: number of folds.
        l2: candidates for the penalty; empty means the loss's value alone.
        lr: candidates, for adamw; empty means the optimizer's value alone.
        evaluate_every: adamw: steps between evaluations of the held-out loss.
        patience: adamw: evaluations without improvement after which a head stops learning.
    """

    method: str = "fixed"
    folds: int = 5
    l2: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    evaluate_every: int = 20
    patience: int = 5

    def __post_init__(self) -> None:
        if self.method not in SELECTIONS:
            raise ConfigError(f"selection.method is '{self.method}'; allowed: {', '.join(SELECTIONS)}.")
        for name, least in (("folds", 2), ("evaluate_every", 1), ("patience", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"selection.{name} must be >= {least}; got {getattr(self, name)}.")


@dataclass
class TrainerSettings:
    """Where and how training runs.

    Args:
        accelerator: Lightning's accelerator: auto, cpu, gpu.
        threads: CPU threads for torch; 0 leaves torch's choice.
        checkpoint_every: steps between checkpoints that a later start resumes from; 0 writes none.
        progress: show a progress bar where the output is a terminal.
    """

    accelerator: str = "auto"
    threads: int = 0
    checkpoint_every: int = 0
    progress: bool = True
