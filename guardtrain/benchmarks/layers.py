"""A state dict and a list of its layers → `Layers`: normalisations are folded into the affine layers beside them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.benchmarks.reading import ALONE
from guardtrain.benchmarks.scoring import Layers
from guardtrain.benchmarks.unsaid import Unsaid, value_text
from guardtrain.errors import ConfigError, GuardError
from guardtrain.heads.activations import ACTIVATIONS, LEAKY, Activation

AFFINE = ("linear", "batch_norm", "standardise")
SKIPPED = ("dropout", "identity")
LAST = ("sigmoid", "softmax")  # what may end the list: they make probabilities of what is given here
BATCH_NORM_EPSILON = 1e-5  # torch's

_Affine = tuple[np.ndarray | None, np.ndarray | None]  # weight (out, in) or a diagonal (D,), and bias; None: nothing


@dataclass(frozen=True, eq=False)
class Folded:
    """A network that a list of layers describes, as it is in evaluation.

    Args:
        layers: the network; with several outputs it is to be told which are unsafe (`Layers.judging`).
        outputs: how many it has.
        last: `sigmoid` or `softmax` where the list ends with it, else nothing.
    """

    layers: Layers
    outputs: int
    last: str = ""

    def logit(self, path: Path) -> Layers:
        """The network of one output; raises GuardError where it has several."""
        if self.outputs != 1:
            raise GuardError(f"{path}: layers must end with a linear layer of one output; they have {self.outputs}.")
        return self.layers


def folded(layers: Sequence[Any], arrays: Mapping[str, np.ndarray], path: Path) -> Folded:
    """The network that `layers` describe, as it is in evaluation.

    Args:
        layers: in order: `{linear: NAME}`, `{batch_norm: NAME}`, `{standardise: NAME}` with `epsilon`, one of
            `ACTIVATIONS` (`{leaky_relu: SLOPE}` for another slope than torch's), `dropout` or `identity`. NAME is what
            stands before `.weight` in the state dict; '' where nothing does. `standardise` is `(x - NAME.mean) /
            (sqrt(NAME.variance) + epsilon)`. A `sigmoid` or `softmax` at the end says what becomes of the outputs.
        arrays: the state dict, float64.
        path: of the file, for errors.

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

    steps = [(place, *_parsed(layer, place)) for place, layer in enumerate(layers)]
    steps = [step for step in steps if step[1] not in SKIPPED]
    last = steps.pop()[1] if steps and steps[-1][1] in LAST else ""
    weights: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    activations: list[Activation] = []
    pending: _Affine = (None, None)
    for place, kind, name, options in steps:
        if kind not in AFFINE:
            if kind not in ACTIVATIONS:
                raise ConfigError(f"kind.layers[{place}] is {kind}, which can only end the list.")
            if pending[0] is None or pending[1] is None or pending[0].ndim != 2:
                raise GuardError(f"{path}: layers[{place}] is {kind}, and no linear layer stands before it.")
            weights.append(pending[0])
            biases.append(pending[1])
            activations.append(Activation(kind, **options))
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
    if weight is None or bias is None or weight.ndim != 2:
        raise ConfigError(f"{path}: layers must end with a linear layer, perhaps with {' or '.join(LAST)} after it.")
    if last == "softmax" and len(weight) == 1:
        raise ConfigError(f"{path}: layers end with softmax after one output, which is always 1; sigmoid is meant.")
    if unused := sorted(set(arrays) - used - {name for name in arrays if name.endswith("num_batches_tracked")}):
        raise GuardError(f"{path} holds arrays that the layers do not use: {', '.join(unused[:8])}. Describe them all.")
    return Folded(Layers((*weights, weight), (*biases, bias), activations=tuple(activations)), len(weight), last)


def only_layer(arrays: Mapping[str, np.ndarray], path: Path) -> list[Any]:
    """The layers of a state dict that is one linear layer.

    Raises:
        Unsaid: several layers: what stands between them is in the code of the model alone.
        GuardError: arrays that are no layers of a kind that is known here.
    """
    if set(arrays) == {ALONE}:
        raise GuardError(f"{path} holds one array without a name; it is no state dict of linear layers.")
    found = _found(arrays, path)
    if len(found) == 1:
        return found
    names = {layer[kind]: kind for layer in found for kind in layer}
    wide = max(map(len, names))
    shown = [f"  {name:<{wide}}  {_shape(arrays, name, kind)}" for name, kind in names.items()]
    count = sum(kind == "linear" for kind in names.values())
    raise Unsaid(
        "\n".join(
            [
                f"{path} holds {count} linear layers{' and batch norms' if count < len(found) else ''}, and a state "
                "dict does not say what stands between them:",
                *shown,
                f"Say it as the model's code has it: {', '.join(ACTIVATIONS)}, or nothing (dropout does nothing). With "
                "ReLU everywhere it is the first of these lines, without any activation the last:",
            ]
        ),
        [f"kind.layers=[{','.join(map(_text, layers))}]" for layers in _suggested(found)],
    )


def _found(arrays: Mapping[str, np.ndarray], path: Path) -> list[dict[str, str]]:
    """Every linear layer and batch norm, in the file's order, or in that of their numbers if only that one fits."""
    prefixes = list(dict.fromkeys(name.rpartition(".")[0] for name in arrays))
    layers: list[dict[str, str]] = []
    for prefix in prefixes:
        parts = {name.rpartition(".")[2]: array for name, array in arrays.items() if name.rpartition(".")[0] == prefix}
        if set(parts) <= {"weight", "bias"} and "weight" in parts and parts["weight"].ndim == 2:
            layers.append({"linear": prefix})
        elif {"running_mean", "running_var"} <= set(parts):
            layers.append({"batch_norm": prefix})
        else:
            shapes = ", ".join(f"{prefix}.{name} {array.shape}".lstrip(".") for name, array in parts.items())
            raise GuardError(
                f"{path} holds more than linear layers and batch norms: {shapes}. A head of such layers cannot be "
                "imported; read it in Python and benchmark its scores, or train a head here."
            )
    by_number = sorted(layers, key=lambda layer: _natural(next(iter(layer.values()))))
    return by_number if not _fit(layers, arrays) and _fit(by_number, arrays) else layers


def _natural(name: str) -> list[tuple[int, str]]:
    """A key in whose order `2` stands before `10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _fit(layers: Sequence[Mapping[str, str]], arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether each linear layer reads as many numbers as the one before it gives."""
    shapes = [arrays[_full(layer["linear"], "weight")].shape for layer in layers if "linear" in layer]
    return all(before[0] == after[1] for before, after in itertools.pairwise(shapes))


def _full(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _shape(arrays: Mapping[str, np.ndarray], name: str, kind: str) -> str:
    if kind == "linear":
        after, before = arrays[_full(name, "weight")].shape
        return f"{before} → {after}"
    return f"batch norm of {len(arrays[_full(name, 'running_mean')])}"


def _suggested(found: Sequence[dict[str, str]]) -> list[list[Any]]:
    """Ways to read these layers: ReLU after each but the last, before or after a batch norm; no activation at all."""
    after: list[Any] = []
    before: list[Any] = []
    for place, layer in enumerate(found):
        following = found[place + 1 : place + 2]
        if "linear" in layer:
            before += [layer, *(["relu"] if following else [])]
            after += [layer, *(["relu"] if following and "linear" in following[0] else [])]
        else:
            before.append(layer)
            after += [layer, *(["relu"] if following and place else [])]
    return [after, *([before] if before != after else []), list(found)]


def _text(layer: Any) -> str:
    """A layer in Hydra's grammar."""
    if isinstance(layer, str):
        return layer
    ((kind, name),) = layer.items()
    return f"{{{kind}: {value_text(name)}}}"


def _parsed(layer: Any, place: int) -> tuple[str, str, dict[str, Any]]:
    if isinstance(layer, str) and layer in (*ACTIVATIONS, *SKIPPED, *LAST):
        return layer, "", {}
    if isinstance(layer, Mapping):
        keys = {str(key): value for key, value in layer.items()}
        kinds = [key for key in keys if key in (*AFFINE, LEAKY)]
        rest = {key: value for key, value in keys.items() if key not in kinds}
        if len(kinds) == 1 and kinds[0] == LEAKY and not rest and _number(keys[LEAKY]):
            return LEAKY, "", {"slope": float(keys[LEAKY])}
        number = rest.get("epsilon", 0.0)
        if len(kinds) == 1 and kinds[0] in AFFINE and set(rest) <= {"epsilon"} and _number(number) and number >= 0:
            name = keys[kinds[0]]
            return kinds[0], "" if name is None else str(name), rest
    raise ConfigError(
        f"kind.layers[{place}] is {layer!r}; allowed: {', '.join((*ACTIVATIONS, *SKIPPED))}, {{leaky_relu: 0.2}}, "
        "{linear: NAME}, {batch_norm: NAME}, {standardise: NAME, epsilon: 1e-10}; and softmax at the end."
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


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
