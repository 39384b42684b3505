"""ONNX graphs of heads that are a few products, written as they are; torch's exporter takes seconds for each.

It also gives a linear head twenty nodes, where two do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guardtrain.guards.calibration import Beta, Calibrator, Identity, Isotonic, Platt, Temperature
from guardtrain.heads.activations import Activation
from guardtrain.heads.linear import LinearBank
from guardtrain.heads.mlp import MLPBank
from guardtrain.heads.network import NetworkBank
from guardtrain.heads.unit_norm import UnitLinearBank

if TYPE_CHECKING:
    from guardtrain.guards.category_head import CategoryHead
    from guardtrain.heads.bank import HeadBank

OPSET, _IR = 18, 8  # that onnxruntime has read since 1.14
_SMALLEST = 1e-12  # norm that rows are divided by, as torch's `normalize` has it
_NARROWEST = 1e-30  # step between two corners that is divided by

_Tensors = dict[str, np.ndarray]


def head_graph(bank: HeadBank, calibrator: Calibrator) -> Any:
    """A head as an ONNX model: `embeddings` (batch, D) float32 to `logit` and calibrated `probability`, each (batch,).

    Args:
        bank: of one head.

    Returns:
        The model; None where head or calibrator has no graph here: torch's exporter writes it.
    """
    if (found := _layers(bank)) is None or (calibrated := _calibrated(calibrator)) is None:
        return None
    layers, between = found
    tensors: _Tensors = {"last": np.array([-1], dtype=np.int64)}
    nodes, x = [], "embeddings"
    if isinstance(bank, UnitLinearBank):
        tensors["smallest"] = np.array(_SMALLEST, dtype=np.float32)
        nodes += [
            "norm = ReduceL2 (embeddings, last)",
            "length = Max (norm, smallest)",
            "unit = Div (embeddings, length)",
        ]
        x = "unit"
    for i, (weight, bias) in enumerate(layers):
        tensors |= {f"weight{i}": weight, f"bias{i}": bias}
        nodes.append(f"layer{i} = Gemm ({x}, weight{i}, bias{i})")
        if i < len(layers) - 1:
            more = _activated(between[i], i)
            nodes, tensors = nodes + more[0], tensors | more[1]
        x = f"hidden{i}"
    end = f"layer{len(layers) - 1}"
    if isinstance(bank, NetworkBank) and bank.unsafe:
        for name, places in (("unsafe", bank.unsafe), ("safe", bank.safe)):
            tensors[f"{name}_places"] = np.array(places, dtype=np.int64)
            nodes.append(f"{name} = Gather <axis = 1> ({end}, {name}_places)")
            nodes.append(f"{name}_sum = ReduceLogSumExp <keepdims = 0> ({name}, last)")
        nodes.append("logit = Sub (unsafe_sum, safe_sum)")
    else:
        nodes.append(f"logit = Squeeze ({end}, last)")
    return _model(
        bank.dim,
        "float[batch] logit, float[batch] probability",
        nodes + calibrated[0],
        tensors | calibrated[1],
    )


def category_graph(head: CategoryHead) -> Any:
    """A category head as an ONNX model: `embeddings` (batch, D) float32 to `logits` and `categories` (batch, C)."""
    size, dim = head.weight.shape
    nodes = ["logits = Gemm <transB = 1> (embeddings, weight, bias)", "categories = Softmax <axis = 1> (logits)"]
    outputs = f"float[batch, {size}] logits, float[batch, {size}] categories"
    return _model(dim, outputs, nodes, {"weight": head.weight, "bias": head.bias})


@torch.no_grad()
def _layers(bank: HeadBank) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[Activation]] | None:
    """Weights (I, O) and biases (O,) of each layer, on rows as they come in or of unit norm, and what is between."""
    activations: list[Activation] = []
    if type(bank) is LinearBank:
        weight, bias = bank.on_raw_input()
        found = [(weight.T, bias)]
    elif type(bank) is UnitLinearBank:
        found = [(bank.weight[0], bank.bias[0])]
    elif type(bank) is MLPBank or type(bank) is NetworkBank:
        weights, biases = ([p[0] for p in parameters] for parameters in (bank.weights, bank.biases))
        weights[0] = weights[0] / bank.input_scale[0]
        biases[0] = biases[0] - bank.input_mean[0] @ weights[0]
        found = list(zip(weights, biases, strict=True))
        activations = [Activation()] * (len(found) - 1) if type(bank) is MLPBank else list(bank.activations)
    else:  # its own class or a user's, whose forward may be any
        return None
    return [(weight.float().cpu().numpy(), bias.float().cpu().numpy()) for weight, bias in found], activations


def _activated(activation: Activation, i: int) -> tuple[list[str], _Tensors]:
    """Nodes and tensors from `layer{i}` to `hidden{i}`; this opset has neither SiLU nor GELU."""
    match activation.name:
        case "silu":
            return [f"gate{i} = Sigmoid (layer{i})", f"hidden{i} = Mul (layer{i}, gate{i})"], {}
        case "gelu":
            tensors = {"half": 0.5, "one": 1.0, "root": 2**-0.5}
            return [
                f"scaled{i} = Mul (layer{i}, root)",
                f"error{i} = Erf (scaled{i})",
                f"twice{i} = Add (error{i}, one)",
                f"share{i} = Mul (twice{i}, half)",
                f"hidden{i} = Mul (layer{i}, share{i})",
            ], {name: np.array(value, dtype=np.float32) for name, value in tensors.items()}
        case "leaky_relu":
            return [f"hidden{i} = LeakyRelu <alpha = {activation.slope!r}> (layer{i})"], {}
    return [f"hidden{i} = {activation.name.capitalize()} (layer{i})"], {}


def _calibrated(calibrator: Calibrator) -> tuple[list[str], _Tensors] | None:
    """Nodes and tensors from `logit` to `probability`; `last` is there."""
    match calibrator:
        case Identity():
            return ["probability = Sigmoid (logit)"], {}
        case Temperature(temperature=temperature):
            return _sigmoid_of("steep = Mul (slope, logit)", slope=1 / temperature, intercept=0.0)
        case Platt(slope=slope, intercept=intercept):
            return _sigmoid_of("steep = Mul (slope, logit)", slope=slope, intercept=intercept)
        case Beta(a=a, b=b, c=c):
            return _sigmoid_of(
                "log_rest = Softplus (logit)",  # -log(1 - p)
                "negative = Neg (logit)",
                "log_p = Softplus (negative)",  # -log p
                "rising = Mul (b, log_rest)",
                "falling = Mul (a, log_p)",
                "steep = Sub (rising, falling)",
                a=a,
                b=b,
                intercept=c,
            )
        case Isotonic(logits=x, values=y):
            return _interpolated(np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32))
    return None


def _sigmoid_of(*nodes: str, **numbers: float) -> tuple[list[str], _Tensors]:
    """The sigmoid of `steep + intercept`."""
    tensors = {name: np.array(value, dtype=np.float32) for name, value in numbers.items()}
    return [*nodes, "shifted = Add (steep, intercept)", "probability = Sigmoid (shifted)"], tensors


def _interpolated(x: np.ndarray, y: np.ndarray) -> tuple[list[str], _Tensors]:
    """numpy's `interp` of ascending corners (K,), flat beyond them.

    Each logit is placed below the first corner above it, and its value counted down from there: that needs no case of
    its own for corners of one logit.
    """
    if len(x) == 1:  # a constant: two corners say the same
        x, y = np.repeat(x, 2), np.repeat(y, 2)
    tensors = {
        "corners": x,
        "values": y,
        "widths": np.maximum(np.diff(x, prepend=x[:1]), np.float32(_NARROWEST)),
        "rises": np.diff(y, prepend=y[:1]),
        "first": np.array(1, dtype=np.int64),
        "final": np.array(len(x) - 1, dtype=np.int64),
        "none": np.array(0, dtype=np.float32),
        "whole": np.array(1, dtype=np.float32),
    }
    nodes = [
        "column = Unsqueeze (logit, last)",
        "reached = GreaterOrEqual (column, corners)",
        "counted = Cast <to = 7> (reached)",  # int64
        "passed = ReduceSum <keepdims = 0> (counted, last)",
        "above = Clip (passed, first, final)",
        *(f"{one} = Gather ({name}, above)" for one, name in _AT_THE_CORNER.items()),
        "missing = Sub (corner, logit)",
        "ratio = Div (missing, width)",
        "share = Clip (ratio, none, whole)",
        "lower = Mul (share, rise)",
        "probability = Sub (value, lower)",
    ]
    return nodes, tensors


_AT_THE_CORNER = {"corner": "corners", "value": "values", "width": "widths", "rise": "rises"}


def _model(dim: int, outputs: str, nodes: Sequence[str], tensors: Mapping[str, np.ndarray]) -> Any:
    """An ONNX model of nodes in ONNX's own text."""
    from onnx import numpy_helper, parser

    body = "\n".join(nodes)
    model = parser.parse_model(
        f'<ir_version: {_IR}, opset_import: ["": {OPSET}], producer_name: "guardtrain">\n'
        f"head (float[batch, {dim}] embeddings) => ({outputs}) {{\n{body}\n}}"
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in tensors.items()
    )
    return model
