"""The settings of a guard: calibration, operating points, validation, and which files it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from guardtrain.errors import ConfigError
from guardtrain.guards.base_rates import checked_share
from guardtrain.guards.calibration import CALIBRATORS
from guardtrain.guards.calibration_choice import SCORES
from guardtrain.guards.thresholds import DEFAULT_POINT, DEFAULT_RULES
from guardtrain.guards.thresholds_rules import Rule

UNUSED, VALIDATION_SPLIT = "unused", "val"
PICK_VALIDATION, PICK_TEST = "validation", "test"


@dataclass
class PointSettings:
    """An operating point; see `guardtrain.guards.thresholds_rules.Rule`.

    Args:
        kind: `fpr`, `recall`, `precision` or `cost`.
        target: the rate; for cost, how many false alarms a miss costs.
        method: `guaranteed`: met with `confidence` on images like validation's; `conformal`: met on average over
            validation sets; `point`: met on validation itself, and exceeded elsewhere about every other time. null is
            `guaranteed`, for cost `point`.
        confidence: of the guarantee and the intervals.
        prevalence: share of unsafe images where the guard will work, for precision and cost; null: `prior`, or
            validation's where that is null, too.
    """

    kind: str = "fpr"
    target: float = 0.05
    method: str | None = None
    confidence: float = 0.95
    prevalence: float | None = None

    def rule(self, prior: float | None = None) -> Rule:
        """The checked rule of these settings, with `prior` for a prevalence that is not said; raises ConfigError."""
        prevalence = self.prevalence
        if prevalence is None and self.kind in ("precision", "cost"):
            prevalence = prior
        return Rule(self.kind, self.target, self.method or "", self.confidence, prevalence)


@dataclass
class ReviewSettings:
    """A three-way operating point: unsafe, safe, or left to people.

    Args:
        enabled: whether there is one.
        name: of the point.
        false_alarms: share of safe images that may be called unsafe.
        misses: share of unsafe images that may be called safe.
        method: `guaranteed`, `conformal` or `point`; see `PointSettings`.
        confidence: of the guarantee and the intervals.
    """

    enabled: bool = False
    name: str = "review"
    false_alarms: float = 0.05
    misses: float = 0.05
    method: str = "guaranteed"
    confidence: float = 0.95


@dataclass
class CategorySettings(PointSettings):
    """A rule for a threshold of each category; see `PointSettings`.

    Args:
        enabled: whether there are such thresholds.
    """

    enabled: bool = False


@dataclass
class CalibrationSettings:
    """How scores become probabilities.

    Args:
        kinds: calibrators to choose from: identity, temperature, platt, beta, isotonic.
        score: what they are judged by: `log_loss` or `brier`.
        folds: of the cross-fitting.
        replicates: bootstrap draws of the reliability's intervals.
    """

    kinds: list[str] = field(default_factory=lambda: list(CALIBRATORS))
    score: str = "log_loss"
    folds: int = 5
    replicates: int = 1000

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in CALIBRATORS]:
            raise ConfigError(f"calibration.kinds has '{unknown[0]}'; allowed: {', '.join(CALIBRATORS)}.")
        if not self.kinds:
            raise ConfigError(f"calibration.kinds is empty; name some of {', '.join(CALIBRATORS)}.")
        if self.score not in SCORES:
            raise ConfigError(f"calibration.score is '{self.score}'; allowed: {', '.join(SCORES)}.")
        if self.folds < 2 or self.replicates < 1:
            raise ConfigError("calibration.folds must be at least 2 and calibration.replicates at least 1.")


@dataclass
class PickSettings:
    """Which run of a curve: the best by a metric, of those that tell the classes apart as well as the best one.

    Args:
        metric: a column of the results, such as `auroc`, `pair_both_right` or `brier`; not needed where one is left.
        on: `validation`: images that none of these runs was trained on, and of no test set; where there are pairs, of
            both pools, and the mean of the two counts. Or `test`, a test set, whose figures are then no longer those
            of images that nothing was chosen on.
        test: which test set; for `on: test` alone.
        best: `run`: the best one; `setting`: the best head, budget, ratio, arm and control by the mean over seeds, then
            the best of its seeds.
        head, run, budget, ratio, arm, seed: only runs with this value (a head by its own name, `mlp`); null for all.
        control: only runs of this control; null for the runs that are none: real images alone, and whole pairs.
    """

    metric: str | None = None
    on: str = PICK_VALIDATION
    test: str | None = None
    best: str = "run"
    head: str | None = None
    run: str | None = None
    budget: int | None = None
    ratio: float | None = None
    arm: str | None = None
    control: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("on", (PICK_VALIDATION, PICK_TEST)), ("best", ("run", "setting"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"pick.{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return self != PickSettings()


@dataclass
class GuardSettings:
    """Settings of a guard, besides its head.

    Args:
        name: what it is called; null for the data and the head.
        licence: of the guard, as Hugging Face names it (mit, apache-2.0, cc-by-4.0); null for `other`.
        taxonomy: name of the categories' taxonomy (llavaguard, safetypairs, unsafebench, your own).
        validation: which images calibrate and set thresholds: `unused` (images of the real pool that neither the run
            nor a test set uses), the name of a test set, or `val` (the real records whose split says so). Images of the
            pair pool have no say: what is promised is for images like the real pool's. They are measured beside.
        validation_limit: at most so many of them; whole groups are left out at random.
        calibration: how scores become probabilities.
        prior: share of unsafe images where the guard will work, such as 0.02: for it its probabilities hold (their
            log-odds are moved), and with it precision and cost reckon. null: the share among validation images. It
            changes no threshold for a false-positive rate or recall.
        points: operating points by name; none stands for `strict`, `balanced` and `permissive`.
        default_point: the one used where none is asked for; null for `balanced`, else the first.
        categories: name the category of an unsafe image: null where validation shows that it is named better than by
            the commonest alone; true in any case; false never.
        category_minimum: independent unsafe training images a category needs to be named; two such categories at least.
        onnx: write `head.onnx`; and `categories.onnx`, if categories are named. null where the packages are installed;
            true needs them.
        whole: write `guard.onnx`, pixels in, the encoder included: of a ViT-B/32 350 MB, half a minute on one core.
        program: write `guard.pt2`, the same as a torch.export program.
        neighbours: keep the training embeddings, so that predictions can be explained by the nearest ones.
        seed: of bootstrap and folds.
    """

    name: str | None = None
    licence: str | None = None
    taxonomy: str | None = None
    validation: str = UNUSED
    validation_limit: int = 10000
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    prior: float | None = None
    points: dict[str, Any] = field(default_factory=dict)  # of PointSettings; typed so, Hydra lets nobody add to it
    default_point: str | None = None
    review: ReviewSettings = field(default_factory=ReviewSettings)
    category_points: CategorySettings = field(default_factory=CategorySettings)
    categories: bool | None = None
    category_minimum: int = 20
    onnx: bool | None = None
    whole: bool = False
    program: bool = False
    neighbours: bool = False
    seed: int = 0

    def with_packages(self, say: Callable[[str], None]) -> Self:
        """Return the settings with `onnx` true or false; tells `say` where packages are missing that nobody asked for.

        Raises:
            GuardError: the guard is to have ONNX programs, and their packages are missing.
        """
        from guardtrain.guards.onnx_export import onnx_wanted, require_onnx

        if self.whole:
            require_onnx()
        return replace(self, onnx=onnx_wanted(self.onnx, say))

    def rules(self) -> dict[str, Rule]:
        """The rules of the operating points, checked.

        Raises:
            ConfigError: a rule that is none, a default that is none of them, or a prior that is no share.
        """
        if self.prior is not None:
            checked_share(self.prior)
        if self.validation_limit < 2:
            raise ConfigError(f"validation_limit is {self.validation_limit}; it must be at least 2.")
        rules = {} if self.points else dict(DEFAULT_RULES)
        for name, point in self.points.items():
            try:
                rules[name] = _point(point).rule(self.prior)
            except ConfigError as error:
                raise ConfigError(f"points.{name}: {error}") from error
        names = [*rules, *([self.review.name] if self.review.enabled else [])]
        if self.default_point is not None and self.default_point not in names:
            raise ConfigError(f"default_point is '{self.default_point}'; there are: {', '.join(names)}.")
        self.category_points.rule(self.prior)
        if self.category_minimum < 2:
            raise ConfigError(f"category_minimum is {self.category_minimum}; it must be at least 2.")
        return rules

    @property
    def default(self) -> str:
        """The name of the default point."""
        names = list(self.points or DEFAULT_RULES)
        return self.default_point or (DEFAULT_POINT if DEFAULT_POINT in names else names[0])


def _point(given: Any) -> PointSettings:
    """A point of the config; raises ConfigError for what is no mapping, or has an unknown key."""
    if isinstance(given, PointSettings):
        return given
    allowed = [one.name for one in fields(PointSettings)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"a mapping with {', '.join(allowed)} is needed; it is {given!r}.")
    if unknown := [key for key in given if key not in allowed]:
        raise ConfigError(f"there is no '{unknown[0]}'; allowed: {', '.join(allowed)}.")
    return PointSettings(**given)
