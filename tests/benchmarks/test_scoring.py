"""Layers and concepts in numpy against torch, and as heads of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from guardtrain.benchmarks.concepts import Concepts
from guardtrain.benchmarks.layers import folded, guessed
from guardtrain.benchmarks.scoring import Layers, affine, highest
from guardtrain.errors import ConfigError, GuardError

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
    with pytest.raises(GuardError, match="same number of layers"):
        highest([drawn(g, 4, 1), drawn(g, 4, 2, 1)])


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
    found = folded(layers, arrays, PATH).logits(x.numpy())
    with torch.no_grad():
        out = module(x)
    wanted = out[:, 0] if outputs == 1 else out[:, 1] - out[:, 0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-9)
    if outputs == 2:
        np.testing.assert_allclose(folded(layers, arrays, PATH, unsafe=0).logits(x.numpy()), -found)


def test_what_layers_cannot_be_says_so() -> None:
    arrays = {"a.weight": np.ones((3, 4)), "a.bias": np.ones(3), "b.weight": np.ones((1, 3))}
    assert folded(guessed(arrays, PATH), arrays, PATH).logits(np.ones((1, 4))).tolist() == [15.0]
    for layers, words in (
        ([{"linear": "a"}], "end with a linear layer"),
        ([{"linear": "a"}, "gelu"], r"layers\[1\] is 'gelu'"),
        ([{"linear": "a", "epsilon": "x"}], "allowed: relu"),
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
    with pytest.raises(GuardError, match="more than linear layers"):
        guessed(arrays | {"bn.running_mean": np.ones(3)}, PATH)


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
