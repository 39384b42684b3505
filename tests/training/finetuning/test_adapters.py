from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from guardtrain.encoders.encoder import Encoder
from guardtrain.errors import ConfigError, EncoderError
from guardtrain.installing import install_line
from guardtrain.training.finetuning.adapters import Adapters, require_merged, require_peft
from guardtrain.training.finetuning.settings import LoraSettings

pytest.importorskip("peft", reason="needs the extra lora")

SETTINGS = LoraSettings(rank=2, alpha=6.0)


def _adapted(encoder: Encoder, settings: LoraSettings = SETTINGS) -> tuple[Adapters, Callable[..., torch.Tensor], Any]:
    model: Any = encoder.model
    is_clip = encoder.spec.family == "open_clip"
    tower, features = (model.visual, model.encode_image) if is_clip else (model, model)
    height, width = encoder.spec.image_size or (0, 0)
    pixels = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    return Adapters(tower, features, pixels[:1], settings, seed=0), features, pixels


@pytest.mark.parametrize("kind", ["resnet", "transformer", "timm"])
def test_adapters_learn_the_base_stays_and_merging_changes_no_embedding(load, kind: str) -> None:
    encoder = load(kind)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    adapters, features, pixels = _adapted(encoder)
    frozen = load(kind).forward(pixels)
    finish = torch.nn.functional.normalize if encoder.spec.normalize else lambda x: x
    # untrained adapters change nothing
    torch.testing.assert_close(finish(features(pixels)), frozen, atol=1e-5, rtol=1e-4)
    optimizer = torch.optim.SGD(adapters.parameters.values(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        loss = finish(features(pixels))[:, :3].sum()
        loss.backward()
        slopes = {name: p.grad for name, p in adapters.parameters.items()}
        # every adapter has a gradient; of A from the second step on, for B starts at zero
        wanted = [name for name in slopes if step or "lora_B" in name]
        assert len(wanted) == len(adapters.names) * (2 if step else 1)
        assert all(slopes[name] is not None and slopes[name].abs().max() > 0 for name in wanted)
        optimizer.step()
    trained = {name: p.detach().clone() for name, p in adapters.parameters.items()}
    adapted = finish(features(pixels)).detach()
    assert (adapted - frozen).abs().max() > 1e-4
    adapters.merge()
    torch.testing.assert_close(finish(features(pixels)), adapted, atol=1e-5, rtol=1e-3)
    after = encoder.model.state_dict()
    assert list(after) == list(before)  # the layers it had at first, in the library's own layout
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    prefix = "visual." if encoder.spec.family == "open_clip" else ""
    fused = {"q_proj": "in_proj_weight", "k_proj": "in_proj_weight", "v_proj": "in_proj_weight"}
    expected = set()
    for name in adapters.names:
        parent, _, own = name.rpartition(".")
        stored = f"{parent}.{fused[own]}" if own in fused else f"{name}.weight"
        expected.add(prefix + stored)
    assert changed == expected  # and nothing else, to the last bit: no bias, no statistic, no text tower
    # LoRA's own formula on the first linear layer: W + alpha / rank · B A
    linear = next((n for n in adapters.names if n.endswith(("c_fc", "fc1"))), None)
    if linear is not None:
        a, b = (next(v for n, v in trained.items() if f"{linear}.lora_{x}" in n) for x in "AB")
        delta = after[f"{prefix}{linear}.weight"] - before[f"{prefix}{linear}.weight"]
        torch.testing.assert_close(delta, 3.0 * b @ a, atol=1e-6, rtol=1e-4)


def test_layers_that_are_never_called_get_no_adapter(load) -> None:
    # the attention pooling of CLIP's ResNet lends its projections' weights to a function: adapters would do nothing
    names = _adapted(load("resnet"))[0].names
    assert "layer4.0.conv3" in names and not any("attnpool" in name for name in names)
    opened = _adapted(load("transformer"))[0].names
    assert {f"transformer.resblocks.0.attn.{p}_proj" for p in ("q", "k", "v", "out")} <= set(opened)


def test_targets_choose_layers_by_name(load) -> None:
    settings = LoraSettings(rank=2, targets="q_proj|v_proj")
    assert _adapted(load("transformer"), settings)[0].names == [
        "transformer.resblocks.0.attn.q_proj",
        "transformer.resblocks.0.attn.v_proj",
    ]
    with pytest.raises(ConfigError, match=r"lora.targets='qkv' finds none of the \d+ layers .*conv1"):
        _adapted(load("resnet"), LoraSettings(targets="qkv"))


def test_first_weights_are_those_of_the_seed_and_touch_no_global_state(load) -> None:
    one, other = load("timm"), load("timm")  # building a model draws from the global generator
    torch.manual_seed(5)
    first = _adapted(one)[0].parameters
    drawn = torch.rand(1)
    again = _adapted(other)[0].parameters
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)


def test_what_is_missing_or_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match="merged encoder gives other embeddings"):
        require_merged(torch.ones(2, 3), torch.ones(2, 3) * 1.01)
    require_merged(torch.ones(2, 3), torch.ones(2, 3) + 1e-6)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=re.escape(install_line("lora"))):
        require_peft()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "lora.rank must be >= 1"),
        ({"lr": 0.0}, "lora.lr must be > 0"),
        ({"folds": 1}, "lora.folds is 0 .* or at least 2"),
        ({"augment": "blur"}, "allowed: none, flip, crop"),
        ({"precision": "8"}, "allowed: 32-true"),
        ({"dropout": 1.0}, r"share in \[0, 1\)"),
        ({"targets": "("}, "no regular expression"),
    ],
)
def test_settings_outside_their_bounds_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraSettings(**given)
