"""scikit-learn classifiers in skops files: linear ones and MLPs become heads of ours, others are scored as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.benchmarks.scoring import Layers
from guardtrain.errors import GuardError

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank

# Numbers that an MLPClassifier keeps of its training; skops lists them as not yet reviewed.
_OPTIMIZERS = tuple(
    f"sklearn.neural_network._stochastic_optimizers.{name}" for name in ("AdamOptimizer", "SGDOptimizer")
)
_LEAST = 1e-12  # probabilities of 0 and 1 have no logit


def read_skops(path: Path, trusted: Sequence[str]) -> Any:
    """The object in a skops file, if it consists of types that skops or the user trusts.

    Raises:
        GuardError: skops is missing, the file is none of its own, or holds other types, which are named.
    """
    try:
        import skops.io
    except ImportError as error:
        raise GuardError("scikit-learn models are read with skops: pip install 'guardtrain[sklearn]'.") from error
    if not path.is_file():
        raise GuardError(f"There is no file {path}.")
    allowed = [*trusted, *_OPTIMIZERS]
    try:
        found = [str(name) for name in skops.io.get_untrusted_types(file=path)]
        if refused := sorted(set(found) - set(allowed)):
            raise GuardError(
                f"{path} holds {', '.join(refused)}, which skops does not trust: loading it would import and run that "
                f"code. If you trust it, say so: 'kind.trusted=[{','.join(refused)}]'."
            )
        return skops.io.load(path, trusted=allowed)
    except GuardError:
        raise
    except Exception as error:  # of zip, JSON and skops itself
        raise GuardError(f"{path} is damaged, or no skops file: {str(error)[:300]}") from error


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier that is no head of ours; its logit is the log-odds of its probability.

    Args:
        model: a fitted scikit-learn classifier of two classes with `predict_proba`.
        unsafe: which of its classes is the unsafe one, 0 or 1 by place.
    """

    model: Any
    unsafe: int

    @property
    def dim(self) -> int:
        return int(self.model.n_features_in_)

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        p = np.clip(self.model.predict_proba(embeddings)[:, self.unsafe].astype(np.float64), _LEAST, 1 - _LEAST)
        return np.asarray(np.log(p) - np.log1p(-p))

    def head(self) -> tuple[HeadBank, Mapping[str, Any]]:
        raise GuardError(
            f"A {type(self.model).__name__} is no head of ours, so it cannot be a guard's directory; only linear "
            "models and MLPs with ReLU, alone or after a StandardScaler, can. In Python it can still be benchmarked."
        )


def scorer_of(model: Any, path: Path, unsafe: int) -> Layers | Classifier:
    """A fitted classifier of two classes as layers, where it is a linear model or an MLP, perhaps after a scaler.

    Args:
        model: what `read_skops` gave.
        path: of the file, for errors.
        unsafe: which of its classes is the unsafe one, by place in `classes_`.

    Raises:
        GuardError: no classifier of two classes, or one without probabilities.
    """
    classes = getattr(model, "classes_", None)
    if classes is None or len(classes) != 2 or not hasattr(model, "n_features_in_"):
        raise GuardError(f"{path} holds a {type(model).__name__}; a fitted classifier of two classes is needed.")
    layers = _layers(model)
    if layers is None:
        if not hasattr(model, "predict_proba"):
            raise GuardError(f"{path} holds a {type(model).__name__}, which gives no probabilities.")
        return Classifier(model, unsafe)
    if unsafe == 1:
        return layers
    return Layers((*layers.weights[:-1], -layers.weights[-1]), (*layers.biases[:-1], -layers.biases[-1]))


def _layers(model: Any) -> Layers | None:
    """Layers whose logit is that of the second class; None where there are none."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # Subclasses may compute anything, so the very classes are asked for.
    if type(model) is Pipeline:
        steps = [step for _, step in model.steps if step not in (None, "passthrough")]
        inner = _layers(steps[-1])
        if inner is None or any(type(step) is not StandardScaler for step in steps[:-1]):
            return None
        for scaler in reversed(steps[:-1]):
            inner = _after_scaler(inner, scaler)
        return inner
    if type(model) is LogisticRegression:
        return Layers((model.coef_.astype(np.float64),), (np.broadcast_to(model.intercept_, 1).astype(np.float64),))
    if type(model) is MLPClassifier and model.activation == "relu" and model.out_activation_ == "logistic":
        weights = tuple(weight.T.astype(np.float64) for weight in model.coefs_)
        return Layers(weights, tuple(bias.astype(np.float64) for bias in model.intercepts_))
    return None


def _after_scaler(layers: Layers, scaler: Any) -> Layers:
    """The same layers on what is not yet scaled."""
    first = layers.weights[0] / scaler.scale_ if scaler.with_std else layers.weights[0]
    shift = layers.biases[0] - first @ scaler.mean_ if scaler.with_mean else layers.biases[0]
    return Layers((first, *layers.weights[1:]), (shift, *layers.biases[1:]))
