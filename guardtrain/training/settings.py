"""What a user can set about training; light, so that the config schema can import it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from guardtrain.errors import ConfigError

CLASS_WEIGHTS = ("none", "balanced")
OPTIMIZERS = ("auto", "lbfgs", "adamw")
SELECTIONS = ("fixed", "cross_validation")
BEST, ONE_STANDARD_ERROR = "best", "one_standard_error"
RULES = (BEST, ONE_STANDARD_ERROR)


@dataclass
class PairSettings:
    """Settings for the images of the pair pool, and for the pairs of which a run has both halves.

    With all of them 0 a pair is two images like any others.

    Args:
        mass: pair images are weighted up to this share of the loss's mass where they have less, in [0, 1): a few pairs
            among many real images would be drowned by them.
        centring: weight of the squared mean logit of a pair. Its halves lie on both sides of the boundary, so their
            mean belongs on it; and what the midpoints vary in is everything but the feature.
        logistic: weight of softplus(-(unsafe logit - safe logit)) of a pair.
        offset: how freely the real images have an intercept of their own (the penalty on it falls with the square): in
            confounded data their labels say little about where the boundary lies among counterfactuals. The head
            keeps the pairs' intercept. 0: one intercept for all. Linear heads only.
        contrastive: weight of PairCFR's contrastive loss (Qiu et al., ACL 2024, arXiv 2406.06633) on the features that
            the head's last layer reads: halves of one class are drawn together and away from those of the other, a
            pair's own other half among them. Heads trained by steps that learn features only.
        temperature: of the contrastive loss; PairCFR's for two classes.
        gradient: weight of gradient supervision (Teney et al., ECCV 2020, arXiv 2004.09034): one minus the cosine
            between the logit's gradient in the embedding and the pair's difference, at both halves. Heads trained by
            steps that are not linear only. null: by the head, 1 for MLPs and 0 for others.
    """

    mass: float = 0.0
    centring: float = 0.0
    logistic: float = 0.0
    offset: float = 0.0
    contrastive: float = 0.0
    temperature: float = 0.3
    gradient: float | None = 0.0

    @property
    def active(self) -> bool:
        """Whether a pair is anything but two images."""
        return any(getattr(self, f.name) for f in fields(self) if f.name != "temperature")

    @property
    def needs_halves(self) -> bool:
        """Whether training by steps must see both halves of a pair in one step."""
        return bool(self.centring or self.logistic or self.contrastive or self.gradient)

    def __post_init__(self) -> None:
        if not 0 <= self.mass < 1:
            raise ConfigError(f"loss.pairs.mass is a share in [0, 1); got {self.mass:g}.")
        for name in ("centring", "logistic", "offset", "contrastive", "gradient"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"loss.pairs.{name} must be >= 0; got {getattr(self, name):g}.")
        if self.temperature <= 0:
            raise ConfigError(f"loss.pairs.temperature must be > 0; got {self.temperature:g}.")


@dataclass
class LossSettings:
    """Binary cross-entropy with an L2 penalty: `mean_i w_i·BCE_i + l2 / (2n) · ‖weights‖²`, and what pairs add to it.

    Args:
        l2: strength of the penalty on the weights (not the biases), on inputs standardised by the head: scikit-learn's
            1/C. It counts as so many images' worth of prior, so its weight falls as the budget n grows. null: by the
            run's number of images n alone, max(0.3, 128 / n).
        class_weight: `balanced` weighs both classes to the same mass within each run's training images
            (scikit-learn's definition); `none` counts every image once.
    """

    class_weight: str = "balanced"
    l2: float | None = None
    pairs: PairSettings = field(default_factory=PairSettings)

    def __post_init__(self) -> None:
        if self.l2 is not None and self.l2 < 0:
            raise ConfigError(f"loss.l2 must be >= 0; got {self.l2:g}.")
        if self.class_weight not in CLASS_WEIGHTS:
            raise ConfigError(f"loss.class_weight is '{self.class_weight}'; allowed: {', '.join(CLASS_WEIGHTS)}.")

    def strength(self, images: int) -> float:
        """The penalty of a run with so many images, where nothing chooses it."""
        return max(0.3, 128 / images) if self.l2 is None else self.l2


@dataclass
class OptimizerSettings:
    """How the loss is minimised.

    Args:
        kind: `lbfgs` finds the optimum of convex heads on all images of a run at once; `adamw` takes steps on batches,
            with a cosine decay to zero; `auto` is lbfgs for convex heads (linear) and adamw for the rest.
        iterations: lbfgs: evaluations of loss and gradient at most.
        tolerance: lbfgs: a head is done when its Newton decrement is at most this; half its square is about how far
            the loss is above its minimum.
        steps: adamw: optimisation steps.
        lr: adamw: peak learning rate, on inputs standardised by the head.
        weight_decay: adamw: decoupled weight decay, beside the loss's L2 penalty; biases are not decayed.
        batch_size: adamw: images of its own each head sees in a step; a run with fewer images sees all of them.
        noise: adamw: standard deviation of Gaussian noise on the embeddings of a step, new in each, where the spread of
            a run's images is 1 (the root mean square of their centred coordinates); 0 adds none. Measured with 1: see
            `docs/pages/defences.md`.
    """

    kind: str = "auto"
    iterations: int = 1000
    tolerance: float = 1e-6
    steps: int = 300
    lr: float = 0.003
    weight_decay: float = 0.0
    batch_size: int = 128
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise ConfigError(f"optimizer.kind is '{self.kind}'; allowed: {', '.join(OPTIMIZERS)}.")
        for name in ("lr", "tolerance"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"optimizer.{name} must be > 0; got {getattr(self, name):g}.")
        for name, least in (("weight_decay", 0.0), ("noise", 0.0), ("steps", 1), ("iterations", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"optimizer.{name} must be >= {least:g}; got {getattr(self, name):g}.")


@dataclass
class SelectionSettings:
    """How hyper-parameters and the number of steps are chosen, always inside a run's own training images.

    Args:
        method: `fixed` trains once with the loss's and optimizer's settings on all images of the run;
            `cross_validation` trains every candidate on group-safe stratified folds of the run's images, judges it by
            its held-out log-loss (with adamw at its best step: early stopping; linear heads at their optimum are judged
            by AUROC), and trains the chosen one on all images (for that many steps).
        folds: number of folds.
        smallest: runs with fewer images choose nothing: their folds would be too small to tell candidates apart.
        rule: `best` takes the candidate with the lowest mean held-out loss, `one_standard_error` the strongest penalty
            that is not worse by more than the standard error of that mean.
        l2: candidates for the penalty; empty means the loss's value alone.
        lr: candidates, for adamw; empty means the optimizer's value alone.
        evaluate_every: adamw: steps between evaluations of the held-out loss.
        patience: adamw: evaluations without improvement after which a head stops learning.
    """

    method: str = "fixed"
    folds: int = 5
    smallest: int = 256
    rule: str = BEST
    l2: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    evaluate_every: int = 20
    patience: int = 5

    def __post_init__(self) -> None:
        if self.method not in SELECTIONS:
            raise ConfigError(f"selection.method is '{self.method}'; allowed: {', '.join(SELECTIONS)}.")
        if self.rule not in RULES:
            raise ConfigError(f"selection.rule is '{self.rule}'; allowed: {', '.join(RULES)}.")
        if any(value < 0 for value in self.l2):
            raise ConfigError(f"selection.l2 holds a value below 0: {self.l2}.")
        for name, least in (("folds", 2), ("smallest", 2), ("evaluate_every", 1), ("patience", 1)):
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
