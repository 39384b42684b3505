"""scikit-learn classifiers in skops files: linear ones and MLPs become heads of ours, others are scored as they are."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from guardtrain.benchmarks.scoring import Layers
from guardtrain.errors import GuardError
from guardtrain.grammar import setting
from guardtrain.heads.activations import Activation
from guardtrain.installing import install_line

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank

# Numbers that an MLPClassifier keeps of its training; skops lists them as not yet reviewed.
_OPTIMIZERS = tuple(
    f"sklearn.neural_network._stochastic_optimizers.{name}" for name in ("AdamOptimizer", "SGDOptimizer")
)
_LEAST = 1e-12  # probabilities of 0 and 1 have no logit
_PICKLES = (".joblib", ".pkl", ".pickle")
_DRAWN = 64  # embeddings on which layers are compared with the model that they are read from
_EXACT = 1e-9  # of probabilities, both in float64


def read_skops(path: Path, trusted: Sequence[str]) -> Any:
    """The object in a skops file, if it consists of types that skops or the user trusts.

    Raises:
        GuardError: skops is missing, the file is none of its own, or holds other types, which are named.
    """
    try:
        import skops.io
    except ImportError as error:
        raise GuardError(f"scikit-learn models are read with skops: {install_line('sklearn')}.") from error
    if not path.is_file():
        raise GuardError(f"There is no file {path}.")
    _refuse_pickle(path)
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


def _refuse_pickle(path: Path) -> None:
    """Raises GuardError for a pickle, plain or joblib's, with what makes a skops file of it."""
    with path.open("rb") as file:
        start = file.read(2)
    compressed = (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x78\x9c", b"\x78\xda", b"\x78\x01")  # as joblib does
    if path.suffix.lower() not in _PICKLES and not (start[:1] == b"\x80" or start in compressed):
        return
    skops = path.with_name(f"{path.stem}-written.skops") if path.suffix == ".skops" else path.with_suffix(".skops")
    code = f"import joblib, skops.io; skops.io.dump(joblib.load({str(path)!r}), {str(skops)!r})"
    again = ["guardtrain", "import-guard", "sklearn", setting("file", str(skops))]
    raise GuardError(
        f"{path} is a pickle (joblib's, or Python's own): reading one runs whatever code it holds, so it is not read "
        f"here. If you trust it, write it as skops, which holds data alone, and import that:\n"
        f"  {shlex.join(['python', '-c', code])}\n  {shlex.join(again)}"
    )


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted scikit-learn classifier as it is; its logit is the log-odds of its probability.

    Args:
        model: with `predict_proba`.
        unsafe: which of its classes are unsafe, by place.
    """

    model: Any
    unsafe: tuple[int, ...]

    @property
    def dim(self) -> int:
        return int(self.model.n_features_in_)

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """(N,) float64, of an unsafe class."""
        return np.asarray(_predicted(self.model, embeddings)[:, list(self.unsafe)].sum(axis=1))

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        p = np.clip(self.probabilities(embeddings), _LEAST, 1 - _LEAST)
        return np.asarray(np.log(p) - np.log1p(-p))

    def head(self) -> tuple[HeadBank, Mapping[str, Any]]:
        raise GuardError(
            f"A {type(self.model).__name__} is no head of ours, so it cannot be a guard's directory; only logistic "
            "regression and MLPs, alone or after a StandardScaler, can. In Python it can still be benchmarked."
        )


def classes_of(model: Any, path: Path) -> list[Any]:
    """The classes that a fitted classifier tells apart, in the order of its probabilities.

    Raises:
        GuardError: no fitted classifier, one without probabilities, or with several answers an image.
    """
    name, classes = type(model).__name__, getattr(model, "classes_", None)
    if classes is None or not hasattr(model, "n_features_in_"):
        raise GuardError(f"{path} holds a {name}; a fitted classifier is needed.")
    if not hasattr(model, "predict_proba"):
        raise GuardError(f"{path} holds a {name}, which gives no probabilities.")
    shares = _predicted(model, _drawn(model)[:1])
    if not isinstance(shares, np.ndarray) or shares.shape != (1, len(classes)) or not np.isclose(shares.sum(), 1):
        raise GuardError(f"{path} holds a {name} with several answers an image; one is needed, safe or unsafe.")
    if len(classes) < 2:
        raise GuardError(f"{path} holds a {name} that was fitted on one class alone, {classes[0]!s}.")
    return list(classes)


def scorer_of(model: Any, unsafe: tuple[int, ...]) -> Layers | Classifier:
    """A fitted classifier as layers, where it is a logistic regression or an MLP, perhaps after a scaler.

    Layers that do not give the model's own probabilities (one against the rest, say) are not taken.

    Args:
        model: what `read_skops` gave, with several classes, see `classes_of`.
        unsafe: which of its classes are unsafe, by place in `classes_`.
    """
    itself = Classifier(model, unsafe)
    layers = _layers(model)
    if layers is None:
        return itself
    layers, rows = layers.judging(unsafe), _drawn(model)
    z = layers.logits(rows)
    return layers if np.abs(expit(z) - itself.probabilities(rows)).max() <= _EXACT else itself


def scaled_length(model: Any) -> float | None:
    """Length (root mean square) of the embeddings that a pipeline's first scaler was fitted on; None without one."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [step for _, step in model.steps if step not in (None, "passthrough")] if type(model) is Pipeline else []
    scaler = steps[0] if steps and type(steps[0]) is StandardScaler else None
    if scaler is None or scaler.mean_ is None or scaler.var_ is None:
        return None
    return float(np.sqrt(np.square(scaler.mean_).sum() + np.sum(scaler.var_)))


def _predicted(model: Any, rows: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns that had names when it was fitted
        return model.predict_proba(rows)


def _drawn(model: Any) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(_DRAWN, int(model.n_features_in_)))


def _layers(model: Any) -> Layers | None:
    """Layers whose outputs are the logits of all classes, of two that of the second; None where there are none."""
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
        bias = np.broadcast_to(model.intercept_, len(model.coef_)).astype(np.float64)
        return Layers((model.coef_.astype(np.float64),), (bias,))
    if type(model) is MLPClassifier and model.activation in _ACTIVATIONS:
        weights = tuple(weight.T.astype(np.float64) for weight in model.coefs_)
        between = (Activation(_ACTIVATIONS[model.activation]),) * (len(weights) - 1)
        return Layers(weights, tuple(bias.astype(np.float64) for bias in model.intercepts_), activations=between)
    return None


_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid"}  # scikit-learn's names


def _after_scaler(layers: Layers, scaler: Any) -> Layers:
    """Return the layers for input that is not yet scaled."""
    first = layers.weights[0] / scaler.scale_ if scaler.with_std else layers.weights[0]
    shift = layers.biases[0] - first @ scaler.mean_ if scaler.with_mean else layers.biases[0]
    return replace(layers, weights=(first, *layers.weights[1:]), biases=(shift, *layers.biases[1:]))
