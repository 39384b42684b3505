"""What all heads promise: both forms of input, states of one head, files, examples that run, configs that build."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import guardtrain.heads
from guardtrain.config import conf_dir
from guardtrain.config_checks import build
from guardtrain.curves.pairless import WITHOUT_PAIRS
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import ConfigError
from guardtrain.heads import (
    CLAPHead,
    DirectHead,
    GDAHead,
    HeadData,
    LinearHead,
    LPPlusPlusHead,
    NeighboursHead,
    PairDirectionHead,
    PrototypeHead,
    RidgeHead,
    TextAnchored,
    TipAdapterFHead,
    TipAdapterHead,
    ZeroShotHead,
    join_states,
)
from guardtrain.heads.artifact import load_head, save_head
from tests.heads.toys import anchors, toy_data

DIM = 8
SPEC = external_spec({"name": "toy"}, DIM)
DIRECT = [GDAHead(), RidgeHead(), PairDirectionHead(), NeighboursHead()]
DIRECT_TEXT = [ZeroShotHead(), TipAdapterHead(), LPPlusPlusHead(iterations=20, longest=20), CLAPHead()]
TRAINED = [PrototypeHead(), PrototypeHead(prototypes=3, learn_scale=True)]
TRAINED_TEXT = [TipAdapterFHead()]
EVERY = [*DIRECT, *DIRECT_TEXT, *TRAINED, *TRAINED_TEXT]


@pytest.mark.parametrize("head", [*DIRECT, *DIRECT_TEXT], ids=lambda head: head.name)
def test_a_head_that_is_another_without_its_pairs_is_named_by_it(head) -> None:
    """Without texts heads are refused; one that makes something of pairs is, without them, the one that is told."""
    if head in DIRECT_TEXT:
        with pytest.raises(ConfigError, match="needs text anchors"):
            head.solve(toy_data(30, DIM), [1.0])
        head = head.anchored(anchors(DIM))
    data = toy_data(30, DIM, pairs=6)
    x = torch.from_numpy(data.x)
    of_pairs, of_none = (head.solve(d, [1.0])[0](x) for d in (data, replace(data, pairs=data.pairs[:0])))
    assert torch.equal(of_pairs, of_none) == (head.name not in WITHOUT_PAIRS)
    if head.name in WITHOUT_PAIRS:
        other = {each.name: each for each in DIRECT}[WITHOUT_PAIRS[head.name]]
        assert torch.equal(of_none, other.solve(data, [1.0])[0](x))


def _bank(definition):
    """A bank of three heads on 12, 20 and 30 images, of different pools."""
    head = definition.anchored(anchors(DIM)) if definition in DIRECT_TEXT + TRAINED_TEXT else definition
    sets = [toy_data(n, DIM, seed=n, pairs=3) for n in (12, 20, 30)]
    if isinstance(head, DirectHead):
        bank = head.bank(3, DIM)
        bank.load_state_dict(join_states([head.solve(data, [1.0])[0].state_dict() for data in sets]))
        return bank
    bank = head.bank(3, DIM)
    bank.reset([1, 2, 3])
    x, y = (torch.from_numpy(np.concatenate([getattr(d, name) for d in sets])) for name in "xy")
    ends = np.cumsum([0, *(len(d.x) for d in sets)])
    indices = [torch.arange(a, b) for a, b in itertools.pairwise(ends)]
    bank.fit_input(x, indices)
    bank.start(x, y, indices)
    return bank


@pytest.mark.parametrize("definition", EVERY, ids=lambda d: d.name)
def test_shared_rows_and_rows_of_ones_own_agree_with_and_without_gradients(definition) -> None:
    bank, x = _bank(definition), torch.from_numpy(toy_data(25, DIM, seed=7).x)
    logits = bank(x)
    assert logits.shape == (3, 25)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(bank(x.expand(3, -1, -1)), logits, rtol=1e-4, atol=1e-4)
    own = torch.stack([x, x.flip(0), x * 1.5])
    expected = torch.stack([bank(rows)[r] for r, rows in enumerate(own)])
    torch.testing.assert_close(bank(own), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(bank(own), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[0], logits[1]) or isinstance(definition, ZeroShotHead)


@pytest.mark.parametrize("definition", EVERY, ids=lambda d: d.name)
def test_a_saved_head_gives_the_same_and_needs_no_prompts(definition, tmp_path: Path) -> None:
    bank, x = _bank(definition), torch.from_numpy(toy_data(25, DIM, seed=7).x)
    for r in range(3):
        save_head(tmp_path, bank, r, SPEC, {"_target_": "somewhere"})
        head = load_head(tmp_path, definition)  # without anchors: they are part of what was saved
        torch.testing.assert_close(
            head.probabilities(x, SPEC), torch.sigmoid(bank(x))[r].detach(), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("definition", DIRECT + DIRECT_TEXT, ids=lambda d: d.name)
def test_direct_heads_answer_in_the_order_of_the_strengths(definition) -> None:
    head = definition.anchored(anchors(DIM)) if isinstance(definition, TextAnchored) else definition
    assert isinstance(head, DirectHead)
    data, x = toy_data(30, DIM, pairs=3), torch.from_numpy(toy_data(25, DIM, seed=7).x)
    together = head.solve(data, [10.0, 0.1, 1.0])
    for strength, bank in zip([10.0, 0.1, 1.0], together, strict=True):
        assert bank.heads == 1
        torch.testing.assert_close(bank(x), head.solve(data, [strength])[0](x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("definition", [LinearHead(), *TRAINED, *TRAINED_TEXT], ids=lambda d: d.name)
def test_trained_heads_are_not_taken_for_direct_ones(definition) -> None:
    assert not isinstance(definition, DirectHead)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(guardtrain.heads.__path__)])
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(f"guardtrain.heads.{name}")
    known = {"np": np, "torch": torch, "HeadData": HeadData}
    failed, _ = doctest.testmod(module, extraglobs=known, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("path", sorted((conf_dir() / "head").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_builds_a_head_whose_bank_works(path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    if "_target_" not in node:  # several heads, which are options of their own
        assert all(Path(path.parent, f"{entry.partition('@')[0]}.yaml").is_file() for entry in node["defaults"])
        return
    head = build(node, "head")
    assert head.bank(2, DIM).heads == 2
    if isinstance(head, TextAnchored) and head.prompts:
        assert min(map(len, head.prompts.values())) >= 4
