"""Calibrators: non-decreasing maps from a head's logits to probabilities, fitted on validation, kept as plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from guardtrain.errors import ConfigError, DataError
from guardtrain.guards.calibration_inputs import checked_fields, require_classes, scored

_LEAST_SLOPE = 1e-3  # of beta calibration that found no use in the logits, in units of 1 / (their spread)
_RIDGE = 1e-6  # of beta calibration: keeps the fit unique where its two features say the same


@dataclass(frozen=True)
class Calibrator(ABC):
    """A non-decreasing map from logits to probabilities of being unsafe; applied with numpy alone.

    Probabilities are those of a population with the validation set's share of unsafe images; `moved` gives those of
    another.
    """

    kind: ClassVar[str]

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities in [0, 1], float64, of logits of any shape."""

    @abstractmethod
    def moved(self, by: float) -> Calibrator:
        """The calibrator whose probabilities have log-odds that are higher by `by`, see `guardtrain.guards.base_rates`.

        An isotonic map's corners are moved, and between them it stays straight; its steps are then those of a fit in
        which each class counts as much as it does in the other population.
        """

    @classmethod
    @abstractmethod
    def _fitted(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Self: ...

    @classmethod
    def fit(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Self:
        """Fit on images that the head was not trained on.

        Args:
            logits: (N,) finite.
            labels: (N,) 0 safe, 1 unsafe; both must be there.
            weights: (N,) above 0, what each image counts; None for 1.

        Raises:
            DataError: logits that are not finite, other labels, one class only, weights that are not above 0.
        """
        images = scored(logits, labels, what="Logits")
        require_classes(images, (0, 1), "Calibration")
        return cls._fitted(images.scores, images.labels, checked_weights(weights, len(images.scores)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `calibrator_from_dict` reads it."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"kind": self.kind, **values}


@dataclass(frozen=True)
class Identity(Calibrator):
    """The head's own probabilities: `sigmoid(logit)`.

    >>> Identity().probabilities(np.array([0.0])).tolist()
    [0.5]
    """

    kind: ClassVar[str] = "identity"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(logits)

    def moved(self, by: float) -> Calibrator:
        return Platt(1.0, by)

    @classmethod
    def _fitted(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Self:
        return cls()


@dataclass(frozen=True)
class Temperature(Calibrator):
    """`sigmoid(logit / temperature)` (Guo et al., On calibration of modern neural networks, ICML 2017).

    Fitted with Platt's smoothed targets, so that the temperature stays above 0 where the logits separate the classes.
    """

    temperature: float
    kind: ClassVar[str] = "temperature"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(np.asarray(logits, dtype=np.float64) / self.temperature)

    def moved(self, by: float) -> Calibrator:
        return Platt(1 / self.temperature, by)

    @classmethod
    def _fitted(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Self:
        from guardtrain.heads.calibration import platt

        slope, _ = platt(logits, labels, weights, intercept=False)
        return cls(1 / slope)


@dataclass(frozen=True)
class Platt(Calibrator):
    """`sigmoid(slope · logit + intercept)` (Platt, Advances in Large Margin Classifiers, 1999); `slope` is above 0."""

    slope: float
    intercept: float
    kind: ClassVar[str] = "platt"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)

    def moved(self, by: float) -> Calibrator:
        return replace(self, intercept=self.intercept + by)

    @classmethod
    def _fitted(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Self:
        from guardtrain.heads.calibration import platt

        return cls(*platt(logits, labels, weights))


@dataclass(frozen=True)
class Beta(Calibrator):
    """`sigmoid(a · log p - b · log(1 - p) + c)` of `p = sigmoid(logit)`, with a, b ≥ 0.

    Kull, Silva Filho and Flach (Beta calibration, AISTATS 2017): right where scores of either class are Beta
    distributed. In logits it is one slope (a) far below 0 and another (b) far above. Logistic regression on the two
    features, with Platt's smoothed targets; where a slope comes out negative the best fit with the constraint has one
    of them 0. Both are never 0.
    """

    a: float
    b: float
    c: float
    kind: ClassVar[str] = "beta"

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        low, high = _beta_features(logits)
        return sigmoid(self.a * low + self.b * high + self.c)

    def moved(self, by: float) -> Calibrator:
        return replace(self, c=self.c + by)

    @classmethod
    def _fitted(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Self:
        features = np.stack(_beta_features(logits), axis=1)  # (N, 2)
        unsafe, n = int(labels.sum()), len(labels)
        targets = np.where(labels == 1, (unsafe + 1) / (unsafe + 2), 1 / (n - unsafe + 2))
        scale = np.where((spread := features.std(axis=0)) > 0, spread, 1.0)
        scaled = features / scale
        best: tuple[float, np.ndarray, float] | None = None
        for columns in ([0, 1], [0], [1]):
            slopes, intercept = _logistic(scaled[:, columns], targets, weights)
            if (slopes < 0).any():
                continue
            both = np.zeros(2)
            both[columns] = slopes
            margin = scaled @ both + intercept
            loss = float((weights * (np.logaddexp(0, margin) - targets * margin)).sum())
            if best is None or loss < best[0]:
                best = loss, both, intercept
        if best is None or not best[1].any():
            rate = float((weights * targets).sum() / weights.sum())
            flat = np.full(2, _LEAST_SLOPE)
            best = 0.0, flat, float(np.log(rate / (1 - rate)) - (scaled @ flat).mean())
        a, b = best[1] / scale
        return cls(float(a), float(b), float(best[2]))


@dataclass(frozen=True)
class Isotonic(Calibrator):
    """The best non-decreasing step function (Zadrozny and Elkan, KDD 2002), straight between its steps.

    scikit-learn's `IsotonicRegression`, with values kept within [1 / (N + 2), (N + 1) / (N + 2)]: so few images cannot
    show that a probability is 0 or 1, and one image on the wrong side would cost an infinite log-loss.

    Args:
        logits, values: the corners, both ascending; beyond them the map is flat.
    """

    logits: tuple[float, ...]
    values: tuple[float, ...]
    kind: ClassVar[str] = "isotonic"

    def __post_init__(self) -> None:
        for name in ("logits", "values"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        x, y = np.array(self.logits), np.array(self.values)
        if not len(x) or len(x) != len(y) or (np.diff(x) < 0).any() or (np.diff(y) < 0).any():
            raise DataError(f"An isotonic map needs as many ascending logits as values; it has {len(x)} and {len(y)}.")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(np.asarray(logits, dtype=np.float64), self.logits, self.values))

    def moved(self, by: float) -> Calibrator:
        values = np.array(self.values)
        with np.errstate(divide="ignore"):  # 0 and 1 stay what they are
            steps = sigmoid(np.log(values) - np.log1p(-values) + by)
        return replace(self, values=tuple(np.maximum.accumulate(steps).tolist()))

    @classmethod
    def _fitted(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Self:
        from sklearn.isotonic import IsotonicRegression

        n = len(labels)
        model = IsotonicRegression(y_min=1 / (n + 2), y_max=(n + 1) / (n + 2), out_of_bounds="clip")
        model.fit(logits, labels.astype(np.float64), sample_weight=weights)
        return cls(tuple(model.X_thresholds_.tolist()), tuple(np.maximum.accumulate(model.y_thresholds_).tolist()))


CALIBRATORS: dict[str, type[Calibrator]] = {  # from the simplest to the freest
    cls.kind: cls for cls in (Identity, Temperature, Platt, Beta, Isotonic)
}


def fit_calibrator(kind: str, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Calibrator:
    """`CALIBRATORS[kind].fit`; raises ConfigError for an unknown kind.

    >>> fit_calibrator("platt", np.array([-2.0, -1.0, 1.0, 0.0]), np.array([0, 0, 1, 1])).kind
    'platt'
    """
    if kind not in CALIBRATORS:
        raise ConfigError(f"There is no calibrator '{kind}'; there are: {', '.join(CALIBRATORS)}.")
    return CALIBRATORS[kind].fit(logits, labels, weights)


def calibrator_from_dict(data: Any) -> Calibrator:
    """The calibrator that `to_dict` wrote.

    Raises:
        DataError: an unknown kind, keys that are missing or unknown, numbers that make no non-decreasing map.

    >>> calibrator_from_dict({"kind": "temperature", "temperature": 2.0})
    Temperature(temperature=2.0)
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in CALIBRATORS:
        raise DataError(f"A calibrator is of kind {', '.join(CALIBRATORS)}; this one is {kind!r}.")
    values = checked_fields(CALIBRATORS[kind], data, extra=["kind"])
    try:
        numbers = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"The {kind} calibrator must hold numbers; it holds {values}.") from error
    wrong = not all(np.isfinite(value).all() for value in numbers.values())
    positive, above = {"temperature": (["temperature"], 0.0), "platt": (["slope"], 0.0)}.get(kind, ([], 0.0))
    wrong |= any(numbers[name] <= above for name in positive)
    wrong |= kind == "beta" and (min(values["a"], values["b"]) < 0 or max(values["a"], values["b"]) == 0)
    if wrong:
        raise DataError(f"The numbers of the {kind} calibrator make no increasing map: {values}.")
    return CALIBRATORS[kind](**values)


def checked_weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    """`weights` (n,) as float64; raises DataError unless all are finite and above 0."""
    if weights is None:
        return np.ones(n)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n,) or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"Weights must be ({n},), finite and above 0; they have shape {values.shape}.")
    return values


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-logits))` in float64, exact in the lower tail and without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64))))


def _beta_features(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p and -log(1 - p) of logits."""
    x = np.asarray(logits, dtype=np.float64)
    return -np.logaddexp(0, -x), np.logaddexp(0, x)


def _logistic(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes and intercept of logistic regression on soft targets: each image once a label."""
    from sklearn.linear_model import LogisticRegression

    mass = np.concatenate([weights * targets, weights * (1 - targets)])
    model = LogisticRegression(C=1 / _RIDGE, tol=1e-8, max_iter=1000, solver="newton-cholesky")
    model.fit(np.tile(features, (2, 1)), np.repeat([1, 0], len(targets)), sample_weight=mass)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])
