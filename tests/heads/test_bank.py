from __future__ import annotations

import pytest
import torch

from guardtrain.errors import ConfigError
from guardtrain.heads import LinearHead, MLPHead

DEFINITIONS = [LinearHead(), MLPHead(hidden=[7]), MLPHead(hidden=[9, 5])]


def _bank(definition, heads=3, dim=6):
    bank = definition.bank(heads, dim)
    bank.reset([10, 11, 12][:heads])
    for parameter in bank.parameters():  # a linear bank starts at zero, which would hide mistakes
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    embeddings = torch.randn(40, dim, generator=torch.Generator().manual_seed(1)) * 3 + 2
    bank.fit_input(embeddings, [torch.arange(i, 30) for i in range(heads)])
    return bank, embeddings


def _reference(bank, r, x):
    """Head r as torch's own layers, on an input standardised beforehand."""
    x = (x - bank.input_mean[r]) / bank.input_scale[r]
    if hasattr(bank, "weight"):
        return (torch.nn.functional.linear(x, bank.weight[r].T) + bank.bias[r]).squeeze(-1)
    for layer, (weight, bias) in enumerate(zip(bank.weights, bank.biases, strict=True)):
        x = torch.nn.functional.linear(x.relu() if layer else x, weight[r].T, bias[r])
    return x.squeeze(-1)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_each_head_equals_torchs_layers(definition):
    bank, embeddings = _bank(definition)
    logits = bank(embeddings)
    assert logits.shape == (3, 40)
    for r in range(3):
        torch.testing.assert_close(logits[r], _reference(bank, r, embeddings), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_shared_rows_and_rows_of_ones_own_agree(definition):
    bank, embeddings = _bank(definition)
    own = embeddings.expand(3, -1, -1)
    torch.testing.assert_close(bank(embeddings), bank(own), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_head_state_loads_into_a_bank_of_one(definition):
    bank, embeddings = _bank(definition)
    alone = definition.bank(1, 6)
    alone.load_state_dict(bank.head_state(2))
    torch.testing.assert_close(alone(embeddings)[0], bank(embeddings)[2], rtol=1e-5, atol=1e-5)


def test_input_is_centred_and_scaled_on_a_heads_own_rows():
    bank, embeddings = _bank(LinearHead())
    rows = embeddings[2:30]
    standardised = (rows - bank.input_mean[2]) / bank.input_scale[2]
    torch.testing.assert_close(standardised.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(standardised.square().mean(), torch.tensor(1.0), rtol=1e-5, atol=0)


def test_initial_weights_depend_on_the_heads_own_seed_only():
    wide, alone = MLPHead(hidden=[5]).bank(3, 6), MLPHead(hidden=[5]).bank(1, 6)
    wide.reset([1, 2, 3])
    alone.reset([3])
    for name, value in alone.state_dict().items():
        assert torch.equal(value[0], wide.state_dict()[name][2]), name
    assert not torch.equal(wide.weights[0][0], wide.weights[0][1])


def test_dropout_keeps_the_mean_and_repeats_for_a_seed():
    bank = MLPHead(hidden=[2000], dropout=0.5).bank(1, 6)
    x = torch.randn(1, 8, 6)
    assert torch.equal(bank(x, step_seed=4), bank(x, step_seed=4))
    assert not torch.equal(bank(x, step_seed=4), bank(x, step_seed=5))
    assert torch.equal(bank(x), bank(x, step_seed=None))
    many = torch.stack([bank(x, step_seed=seed) for seed in range(300)]).mean(0)
    torch.testing.assert_close(many, bank(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("settings", [{"hidden": []}, {"hidden": [4, 0]}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="head"):
        MLPHead(**settings)
