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


def _with_gradients(bank, rows, step, *, pieces=1):
    """Logits, and the gradients of a loss that is not symmetric in the rows."""
    bank.zero_grad()
    slopes = torch.linspace(-1, 2, rows.shape[1])
    logits = [bank(part, step) for part in rows.chunk(pieces, 1)]
    sum(((out / 30).sin() * slope).sum() for out, slope in zip(logits, slopes.chunk(pieces), strict=True)).backward()
    return torch.cat([out.detach() for out in logits], 1), [p.grad.clone() for p in bank.parameters()]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("hidden", [[7], [9, 5], [4, 8, 3]], ids=str)
def test_the_training_pass_is_autograd_on_the_layers(hidden, dropout):
    bank, embeddings = _bank(MLPHead(hidden=hidden, dropout=dropout))
    bank, embeddings = bank.double(), embeddings.double()
    rows = torch.stack([embeddings[i : i + 24] for i in range(3)])
    for step in (3, 4):  # the second time in buffers that have been used
        ours = _with_gradients(bank.train(), rows, step)
        theirs = _with_gradients(bank.eval(), rows, step)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_gradients_of_several_training_passes_add_up():
    bank, embeddings = _bank(MLPHead(hidden=[9, 5]))
    rows = torch.stack([embeddings[i : i + 24] for i in range(3)])
    once, twice = (_with_gradients(bank.train(), rows, None, pieces=pieces) for pieces in (1, 2))
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-5)


def test_a_second_backward_pass_is_refused():
    bank, embeddings = _bank(MLPHead(hidden=[5]))
    loss = bank(embeddings.expand(3, -1, -1)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the bank again"):
        loss.backward()


def test_rows_that_require_a_gradient_get_one():
    bank, embeddings = _bank(MLPHead(hidden=[5]))
    rows = embeddings.repeat(3, 1, 1).requires_grad_()
    (slope,) = torch.autograd.grad(bank(rows).sum(), rows, create_graph=True)
    slope.square().sum().backward()  # a penalty on the slope reaches the weights
    assert bank.weights[0].grad.abs().sum() > 0


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("hidden", [[7], [9, 5]], ids=str)
def test_the_training_pass_gives_features_as_autograd_does(hidden, dropout):
    """A loss on the features of some rows beside one on all logits, in used buffers, too."""
    bank, embeddings = _bank(MLPHead(hidden=hidden, dropout=dropout))
    bank, embeddings = bank.double(), embeddings.double()
    rows = torch.stack([embeddings[i : i + 24] for i in range(3)])
    for step in (3, 4):
        results = {}
        for mode in (True, False):
            bank.train(mode).zero_grad()
            logits, features = bank.with_features(rows, step, 10)
            torch.testing.assert_close(logits, bank(rows, step), rtol=0, atol=1e-12)
            ((logits / 30).sin().sum() + (features * torch.linspace(-1, 2, 14)[:, None]).cos().sum()).backward()
            results[mode] = [logits, features, *(p.grad.clone() for p in bank.parameters())]
        torch.testing.assert_close(results[True], results[False], rtol=1e-6, atol=1e-9)
    # the features are what the last layer reads
    again = (features * bank.weights[-1].mT).sum(2) + bank.biases[-1]
    torch.testing.assert_close(again, logits[:, 10:])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("hidden", [[7], [9, 5], [4, 8, 3]], ids=str)
def test_slope_cosines_in_closed_form_are_those_of_autograd_differentiated_twice(hidden, dropout):
    bank, embeddings = _bank(MLPHead(hidden=hidden, dropout=dropout))
    bank, embeddings = bank.double(), embeddings.double()
    rows = torch.stack([embeddings[i : i + 24] for i in range(3)])
    directions = torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(2)).double()
    for step in (5, 6):  # the second time in buffers that have been used
        watched = rows.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(bank.eval()(watched, step).sum(), watched, create_graph=True)
        shown = torch.nn.functional.cosine_similarity(slopes[:, 10:], directions.repeat_interleave(2, 1), dim=2)
        ours = bank.train().slope_cosines(rows, directions, step, 10)
        torch.testing.assert_close(ours, shown, rtol=1e-6, atol=1e-9)
        gradients = [torch.autograd.grad((found - 0.3).square().sum(), list(bank.weights)) for found in (ours, shown)]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_slope_cosines_where_no_unit_is_above_zero_are_zero_and_teach_nothing():
    bank, embeddings = _bank(MLPHead(hidden=[9]))
    with torch.no_grad():
        bank.biases[0].fill_(-1e4)
    cosines = bank.train().slope_cosines(embeddings.expand(3, -1, -1), torch.ones(3, 20, 6))
    cosines.sum().backward()
    assert not cosines.any()
    assert not any(weight.grad.any() for weight in bank.weights)


def test_a_loss_on_slopes_adds_to_the_training_passs_gradients():
    bank, embeddings = _bank(MLPHead(hidden=[9]))
    rows = torch.stack([embeddings[i : i + 24] for i in range(3)])
    apart = torch.zeros_like(bank.weights[0])
    for parts in ((True, False), (False, True), (True, True)):
        bank.train().zero_grad()
        losses = [bank(rows).square().mean(), bank.slope_cosines(rows, torch.ones(3, 2, 6), None, 20).sum()]
        sum(loss for loss, wanted in zip(losses, parts, strict=True) if wanted).backward()
        apart += bank.weights[0].grad if parts != (True, True) else 0
    torch.testing.assert_close(bank.weights[0].grad, apart, rtol=1e-4, atol=1e-4)


def test_a_head_without_features_says_which_setting_needs_them():
    bank, embeddings = _bank(LinearHead())
    with pytest.raises(ConfigError, match=r"loss\.pairs\.contrastive=0"):
        bank.with_features(embeddings.expand(3, -1, -1))


def test_a_head_drops_the_same_units_in_any_bank():
    definition = MLPHead(hidden=[9, 5], dropout=0.5)
    bank, embeddings = _bank(definition)
    for mode in (True, False):
        together = bank.train(mode)(embeddings.expand(3, -1, -1), 7)
        for r, seed in enumerate([10, 11, 12]):
            alone = definition.bank(1, 6).train(mode)
            alone.reset([seed])
            alone.load_state_dict(bank.head_state(r))
            torch.testing.assert_close(alone(embeddings[None], 7)[0], together[r], rtol=1e-5, atol=1e-5)


def test_dropout_differs_by_seed_step_and_layer_and_is_shared_within_a_seed():
    bank = MLPHead(hidden=[50, 50], dropout=0.3).bank(4, 6)
    bank.reset([1, 1, 2, 1])
    x = torch.zeros(4, 40, 6)

    def masks(step):
        return [
            torch.cat([m.expand(s.stop - s.start, -1, -1) for s, m in layer]) for layer in bank._dropout_masks(step, x)
        ]

    first, second = masks(0)
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[3])
    for other in (first[2], second[0], masks(1)[0][0]):
        assert not torch.equal(first[0], other)
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7])
    share = (first == 0).float()[[0, 2]].mean()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    fewer = bank._dropout_masks(0, x[:, :8])[0][0][1]
    assert torch.equal(fewer, first[0, :8])


def test_bfloat16_products_round_the_factors_only():
    bank = MLPHead(hidden=[33], dropout=0.2).bank(3, 50)
    bank.reset([1, 2, 3])
    rows = torch.randn(3, 96, 50, generator=torch.Generator().manual_seed(2))
    results = {}
    for bank.precision in ("float32", "bfloat16"):
        results[bank.precision] = list(_with_gradients(bank.train(), rows, 1))
    exact, rounded = ([a, *g] for a, g in results.values())
    for a, b, most in zip(exact, rounded, [0.01, *[0.1] * 4], strict=True):
        assert b.dtype == torch.float32
        # a unit in two hundred or so changes sides of zero, and is wholly wrong in the gradients
        assert 0 < (a - b).norm() / a.norm() < most
    assert torch.equal(bank(rows[0]), bank.eval()(rows[0]))  # scores are made in float32


@pytest.mark.parametrize("settings", [{"hidden": []}, {"hidden": [4, 0]}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="head"):
        MLPHead(**settings)
