"""Layers and concepts in numpy against torch, and as heads of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from torch import nn

from guardtrain.benchmarks.concepts import Concepts
from guardtrain.benchmarks.layers import folded, only_layer
from guardtrain.benchmarks.scoring import Layers, affine, highest
from guardtrain.benchmarks.unsaid import Unsaid
from guardtrain.errors import ConfigError, GuardError
from guardtrain.guards.calibration import Identity
from guardtrain.guards.onnx_export import onnx_judge
from guardtrain.guards.programs import export_head
from guardtrain.heads.activations import Activation

PATH = Path("head.pt")


def drawn(g: np.random.Generator, *widths: int) -> Layers:
    sizes = list(zip(widths[1:], widths[:-1], strict=True))
    return Layers(tuple(g.normal(size=s) for s in sizes), tuple(g.normal(size=s[0]) for s in sizes))


def as_head(scorer: Layers | Concepts, x: np.ndarray) -> np.ndarray:
    bank, _ = scorer.head()
    with torch.inference_mode():
        return bank(torch.from_numpy(x.astype(np.float32)))[0].double().numpy()


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 7), widths=st.lists(st.integers(1, 5), max_size=2), seed=st.integers(0, 999))
def test_the_highest_of_several_networks_is_a_network(count: int, widths: list[int], seed: int) -> None:
    g = np.random.default_rng(seed)
    parts = [drawn(g, 4, *widths, 1) for _ in range(count)]
    x = g.normal(size=(20, 4))
    wanted = np.max([part.logits(x) for part in parts], axis=0)
    whole = highest(parts)
    np.testing.assert_allclose(whole.logits(x), wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(as_head(whole, x), wanted, rtol=1e-4, atol=1e-4)


def test_networks_of_different_depth_are_not_joined() -> None:
    g = np.random.default_rng(0)
    tanh = replace(drawn(g, 4, 2, 1), activations=(Activation("tanh"),))
    for parts in ([drawn(g, 4, 1), drawn(g, 4, 2, 1)], [tanh, tanh]):
        with pytest.raises(GuardError, match="ReLU layers of the same number"):
            highest(parts)


@pytest.mark.parametrize("scorer", [affine(np.arange(4.0), 0.5), affine(np.arange(4.0), 0.5, unit=True)])
def test_linear_heads(scorer: Layers) -> None:
    x = np.random.default_rng(0).normal(size=(9, 4)) * 3
    rows = x / np.linalg.norm(x, axis=1, keepdims=True) if scorer.unit else x
    np.testing.assert_allclose(scorer.logits(x), rows @ np.arange(4.0) + 0.5)
    np.testing.assert_allclose(as_head(scorer, x), scorer.logits(x), atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_layers_are_folded_as_torch_computes_them(outputs: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.BatchNorm1d(6), nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False), nn.ReLU(), nn.Dropout(), nn.BatchNorm1d(5),
        nn.Linear(5, 4, bias=False), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, outputs),
    ).double()  # fmt: skip
    for _ in range(20):
        module(torch.randn(64, 6).double() * 2 + 1)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name[0] in "05":
                value += torch.rand_like(value)
    module.eval()
    layers = [
        {"batch_norm": 0}, {"linear": 1}, {"batch_norm": 2}, "relu", "dropout", {"batch_norm": 5}, {"linear": "6"},
        {"linear": 7}, "relu", {"linear": 9},
    ]  # fmt: skip
    arrays = {name: value.numpy().astype(np.float64) for name, value in module.state_dict().items()}
    x = torch.randn(30, 6).double()
    network = folded(layers, arrays, PATH)
    found = network.layers.judging((1,)).logits(x.numpy())
    with torch.no_grad():
        out = module(x)
    wanted = out[:, 0] if outputs == 1 else out[:, 1] - out[:, 0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-9)
    assert (network.outputs, network.last) == (outputs, "")
    np.testing.assert_allclose(network.layers.judging((0,)).logits(x.numpy()), -found)


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


ACTIVATIONS: dict[str, tuple[Any, nn.Module]] = {
    "relu": ("relu", nn.ReLU()),
    "gelu": ("gelu", nn.GELU()),
    "silu": ("silu", nn.SiLU()),
    "tanh": ("tanh", nn.Tanh()),
    "sigmoid": ("sigmoid", nn.Sigmoid()),
    "leaky": ("leaky_relu", nn.LeakyReLU()),
    "leakier": ({"leaky_relu": 0.3}, nn.LeakyReLU(0.3)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs_in_numpy_as_a_head_and_in_onnx(name: str, tmp_path: Path) -> None:
    said, activation = ACTIVATIONS[name]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 5), nn.Dropout(), nn.Linear(5, 4), activation,
                           nn.Linear(4, 1), nn.Sigmoid()).double().eval()  # fmt: skip
    layers = [{"linear": 0}, said, {"linear": 2}, "dropout", {"linear": 4}, said, {"linear": 6}, "sigmoid"]
    x = 4 * torch.randn(40, 6).double()
    found = folded(layers, state_of(module), PATH).logit(PATH)
    with torch.no_grad():
        wanted = module(x)[:, 0].numpy()
    assert len(found.weights) == 3, "two linear layers without an activation between them are one"
    np.testing.assert_allclose(expit(found.logits(x.numpy())), wanted, atol=1e-9)
    np.testing.assert_allclose(expit(as_head(found, x.numpy())), wanted, atol=1e-5)
    bank, _ = found.head()
    export_head(tmp_path, bank, Identity(), x.float().numpy())  # refuses a difference above 1e-5
    outputs = onnx_judge(tmp_path / "head.onnx")(x.float().numpy())
    np.testing.assert_allclose(outputs[1], wanted, atol=2e-5)


def test_several_classes_are_a_softmax_whose_unsafe_ones_are_added(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    layers = [{"linear": 0}, "tanh", {"linear": 2}, "softmax"]
    x = 3 * torch.randn(40, 6).double()
    network = folded(layers, state_of(module), PATH)
    with torch.no_grad():
        shares = module(x).softmax(1).numpy()
    for unsafe in ((0,), (1, 3), (0, 1, 2)):
        found = network.layers.judging(unsafe)
        np.testing.assert_allclose(expit(found.logits(x.numpy())), shares[:, unsafe].sum(1), atol=1e-9)
        np.testing.assert_allclose(expit(as_head(found, x.numpy())), shares[:, unsafe].sum(1), atol=1e-5)
    bank, _ = found.head()
    export_head(tmp_path, bank, Identity(), x.float().numpy())
    with pytest.raises(GuardError, match="one output; they have 4"):
        network.logit(PATH)


def test_what_layers_cannot_be_says_so() -> None:
    arrays = {"a.weight": np.ones((3, 4)), "a.bias": np.ones(3), "b.weight": np.ones((1, 3))}
    only = {"fc.weight": np.ones((1, 3))}
    assert folded(only_layer(only, PATH), only, PATH).layers.logits(np.ones((1, 3))).tolist() == [3.0]
    for layers, words in (
        ([{"linear": "a"}, "gelu"], "end with a linear layer"),
        ([{"linear": "a"}, "mish"], r"layers\[1\] is 'mish'; allowed: relu, gelu, silu, tanh, sigmoid, leaky_relu"),
        ([{"linear": "a", "epsilon": "x"}], "allowed: relu"),
        ([{"leaky_relu": "x"}], "allowed: relu"),
        ([{"linear": "a"}, "softmax", {"linear": "b"}], r"layers\[1\] is softmax, which can only end"),
        ([{"linear": "a"}, "relu", {"linear": "b"}, "softmax"], "sigmoid is meant"),
    ):
        with pytest.raises(ConfigError, match=words):
            folded(layers, arrays, PATH)
    for layers, words in (
        ([{"linear": "b"}], "do not use: a.bias, a.weight"),
        (["relu", {"linear": "a"}], "no linear layer stands before"),
        ([{"linear": "c"}], "has no 'c.weight'"),
        ([{"linear": "b"}, "relu", {"linear": "a"}], "does not fit"),
    ):
        with pytest.raises(GuardError, match=words):
            folded(layers, arrays, PATH)
    with pytest.raises(GuardError, match=r"more than linear layers and batch norms: norm.weight \(3,\)"):
        only_layer(arrays | {"norm.weight": np.ones(3)}, PATH)


def settings_of(arrays: dict[str, np.ndarray]) -> tuple[str, list[list[Any]]]:
    """What is said of a state dict of several layers, and the layers that its settings give, as Hydra reads them."""
    with pytest.raises(Unsaid) as refused:
        only_layer(arrays, PATH)
    parser = OverridesParser.create()
    return str(refused.value), [parser.parse_override(one).value() for one in refused.value.settings]


def test_several_layers_are_not_guessed_and_the_settings_that_are_shown_can_be_read() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    arrays, x = state_of(module), torch.randn(9, 6).double()
    text, (relu, nothing) = settings_of(arrays)
    assert "head.pt holds 3 linear layers, and a state dict does not say what stands between them" in text
    assert "\n  2  5 → 4\n" in text
    with torch.no_grad():
        wanted = module(x)[:, 0].numpy()
    np.testing.assert_allclose(folded(relu, arrays, PATH).layers.logits(x.numpy()), wanted, atol=1e-9)
    assert nothing == [{"linear": 0}, {"linear": 2}, {"linear": 4}]
    with_norm = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1)).double().eval()
    text, (after, before, nothing) = settings_of(state_of(with_norm))
    assert "1  batch norm of 5" in text
    assert after == [{"linear": 0}, {"batch_norm": 1}, "relu", {"linear": 3}]
    assert before == [{"linear": 0}, "relu", {"batch_norm": 1}, {"linear": 3}]
    with torch.no_grad():
        wanted = with_norm(x)[:, 0].numpy()
    np.testing.assert_allclose(folded(after, state_of(with_norm), PATH).layers.logits(x.numpy()), wanted, atol=1e-9)


def test_layers_are_shown_in_their_own_order_where_a_file_sorts_their_names() -> None:
    widths = [6, 5, 5, 5, 5, 5, 1]
    state = {f"net.{2 * i}.weight": np.ones((widths[i + 1], widths[i])) for i in range(6)}
    _, (relu, _) = settings_of({name: state[name] for name in sorted(state)})
    assert [layer["linear"] for layer in relu if layer != "relu"] == [f"net.{2 * i}" for i in range(6)]
    odd = {"": np.ones((5, 6)), "a: b": np.ones((1, 5))}
    _, (relu, _) = settings_of({f"{name}.weight".lstrip("."): array for name, array in odd.items()})
    assert relu == [{"linear": ""}, "relu", {"linear": "a: b"}]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), care=st.booleans())
def test_concepts_decide_as_a_loop_over_images_does(seed: int, care: bool) -> None:
    g = np.random.default_rng(seed)
    x, concepts, special = g.normal(size=(25, 8)), g.normal(size=(5, 8)) * 3, g.normal(size=(2, 8))
    thresholds, special_thresholds = g.uniform(0.3, 0.5, 5), np.full(2, 0.2 if care else 2.0)
    scorer = Concepts(concepts, thresholds, special, special_thresholds)
    for row, logit, head in zip(x, scorer.logits(x), as_head(scorer, x), strict=True):

        def cosine(other: np.ndarray, row: np.ndarray = row) -> float:
            return float(row @ other / np.linalg.norm(row) / np.linalg.norm(other))

        near = any(round(cosine(e) - t, 3) > 0 for e, t in zip(special, special_thresholds, strict=True))
        margins = [cosine(e) - t + (0.01 if near else 0.0) for e, t in zip(concepts, thresholds, strict=True)]
        assert (logit >= 0) == any(round(margin, 3) > 0 for margin in margins)
        assert logit == pytest.approx(100 * (max(margins) - 0.0005), abs=1e-9)
        assert head == pytest.approx(logit, abs=1e-4)
