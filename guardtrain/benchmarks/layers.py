"""A state dict and a list of its layers → `Layers`: normalisations are folded into the affine layers beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.benchmarks.reading import ALONE
from guardtrain.benchmarks.scoring import Layers
from guardtrain.errors import ConfigError, GuardError

AFFINE = ("linear", "batch_norm", "standardise")
ALLOWED = (*AFFINE, "relu", "dropout", "identity")
BATCH_NORM_EPSILON = 1e-5  # torch's

_Affine = tuple[np.ndarray | None, np.ndarray | None]  # weight (out, in) or a diagonal (D,), and bias; None: nothing


def folded(layers: Sequence[Any], arrays: Mapping[str, np.ndarray], path: Path, unsafe: int = 1) -> Layers:
    """The network that `layers` describe, as it is in evaluation.

    Args:
        layers: in order: `relu`, `dropout`, `identity` or `{linear: NAME}`, `{batch_norm: NAME}`,
            `{standardise: NAME}` with `epsilon`. NAME is what stands before `.weight` in the state dict; '' where
            nothing does. `standardise` is `(x - NAME.mean) / (sqrt(NAME.variance) + epsilon)`.
        arrays: the state dict, float64.
        path: of the file, for errors.
        unsafe: of two outputs (a softmax): which is the unsafe one.

    Raises:
        ConfigError: a layer that is none.
        GuardError: arrays that are missing or of other shapes, or are there and not used.
    """
    used: set[str] = set()

    def take(prefix: str, name: str, needed: bool = True) -> np.ndarray | None:
        full = f"{prefix}.{name}" if prefix else name
        if full not in arrays:
            if needed:
                raise GuardError(f"{path} has no '{full}'; it has {', '.join(map(repr, list(arrays)[:16]))}.")
            return None
        used.add(full)
        return arrays[full]

    weights: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    pending: _Affine = (None, None)
    for place, layer in enumerate(layers):
        kind, name, options = _parsed(layer, place)
        if kind in ("dropout", "identity"):
            continue
        if kind == "relu":
            if pending[0] is None or pending[1] is None or pending[0].ndim != 2:
                raise GuardError(f"{path}: layers[{place}] is relu, and no linear layer stands before it.")
            weights.append(pending[0])
            biases.append(pending[1])
            pending = (None, None)
            continue
        made = _affine(kind, name, options, take)
        try:
            pending = _composed(*pending, *made)
            if weights and pending[0].shape[-1] != len(weights[-1]):
                raise ValueError
        except ValueError as error:
            raise GuardError(f"{path}: layers[{place}] ({kind} {name}) does not fit the layer before it.") from error
    weight, bias = pending
    if weight is None or bias is None or weight.ndim != 2 or len(weight) not in (1, 2):
        has = f"; they end with {len(weight)} outputs" if weight is not None and weight.ndim == 2 else ""
        raise ConfigError(
            f"{path}: layers must end with a linear layer of one output (a logit) or two (a softmax){has}."
        )
    if len(weight) == 2:
        weight, bias = (weight[[unsafe]] - weight[[1 - unsafe]]), (bias[[unsafe]] - bias[[1 - unsafe]])
    if unused := sorted(set(arrays) - used - {name for name in arrays if name.endswith("num_batches_tracked")}):
        raise GuardError(f"{path} holds arrays that the layers do not use: {', '.join(unused[:8])}. Describe them all.")
    return Layers((*weights, weight), (*biases, bias))


def guessed(arrays: Mapping[str, np.ndarray], path: Path) -> list[Any]:
    """The layers of a plain MLP: every matrix, in the file's order, with ReLU between them.

    Raises:
        GuardError: anything but weights and biases of linear layers.
    """
    if set(arrays) == {ALONE}:
        raise GuardError(f"{path} holds one array without a name; it is no state dict of linear layers.")
    names = [name.removesuffix("weight").removesuffix(".") for name in arrays if name.split(".")[-1] == "weight"]
    known = {f"{name}.{part}" if name else part for name in names for part in ("weight", "bias")}
    if not names or set(arrays) - known or any(arrays[f"{n}.weight" if n else "weight"].ndim != 2 for n in names):
        raise GuardError(
            f"{path} holds more than linear layers: {', '.join(list(arrays)[:16])}. Say what they are with "
            "kind.layers=[{linear: NAME},relu,{batch_norm: NAME},…]."
        )
    layers: list[Any] = []
    for name in names:
        layers += ["relu", {"linear": name}] if layers else [{"linear": name}]
    return layers


def _parsed(layer: Any, place: int) -> tuple[str, str, dict[str, Any]]:
    if isinstance(layer, str) and layer in ALLOWED and layer not in AFFINE:
        return layer, "", {}
    if isinstance(layer, Mapping):
        kinds = [str(key) for key in layer if key in AFFINE]
        rest = {str(key): value for key, value in layer.items() if key not in AFFINE}
        number = rest.get("epsilon", 0.0)
        if len(kinds) == 1 and set(rest) <= {"epsilon"} and isinstance(number, int | float) and number >= 0:
            name = layer[kinds[0]]
            return kinds[0], "" if name is None else str(name), rest
    raise ConfigError(
        f"kind.layers[{place}] is {layer!r}; allowed: relu, dropout, identity, {{linear: NAME}}, {{batch_norm: NAME}}, "
        "{standardise: NAME, epsilon: 1e-10}."
    )


def _affine(kind: str, name: str, options: Mapping[str, Any], take: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in), or a diagonal (D,), and bias of a layer."""
    if kind == "linear":
        weight, bias = take(name, "weight"), take(name, "bias", needed=False)
        if weight.ndim != 2:
            raise GuardError(f"The weight of the linear layer '{name}' must be (out, in); it is {weight.shape}.")
        return weight, np.zeros(len(weight)) if bias is None else bias
    if kind == "standardise":
        scale = 1 / (np.sqrt(take(name, "variance")) + float(options.get("epsilon", 0.0)))
        return scale, -take(name, "mean") * scale
    weight, bias = take(name, "weight", needed=False), take(name, "bias", needed=False)
    scale = 1 / np.sqrt(take(name, "running_var") + float(options.get("epsilon", BATCH_NORM_EPSILON)))
    scale = scale if weight is None else scale * weight
    return scale, (0.0 if bias is None else bias) - take(name, "running_mean") * scale


def _composed(
    first: np.ndarray | None, shift: np.ndarray | None, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two affine maps as one; a diagonal stays one until a matrix comes."""
    if first is None or shift is None:
        return weight, bias
    if weight.ndim == 2:
        return (weight * first if first.ndim == 1 else weight @ first), weight @ shift + bias
    return (weight[:, None] * first if first.ndim == 2 else weight * first), weight * shift + bias
