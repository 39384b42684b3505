from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from guardtrain.encoders.spec import external_spec
from guardtrain.errors import DataError, EncoderError
from guardtrain.heads import LinearHead, MLPHead
from guardtrain.heads.artifact import load_head, read_description, save_head

SPEC = external_spec({"name": "toy"}, 6)


@pytest.mark.parametrize("definition", [LinearHead(), MLPHead(hidden=[5])], ids=lambda d: d.name)
def test_round_trip_gives_the_same_bits(definition, tmp_path: Path) -> None:
    bank = definition.bank(3, 6)
    for parameter in bank.parameters():
        parameter.data.normal_()
    x = torch.randn(9, 6)
    save_head(tmp_path, bank, 1, SPEC, {"_target_": "somewhere"}, mixture={"budget": 16})
    head = load_head(tmp_path, definition)
    alone = definition.bank(1, 6)
    alone.load_state_dict(bank.head_state(1))
    assert torch.equal(head.probabilities(x, SPEC), alone(x)[0].sigmoid())
    assert head.about["mixture"] == {"budget": 16}


def test_embeddings_of_another_encoder_are_refused(tmp_path: Path) -> None:
    save_head(tmp_path, LinearHead().bank(1, 6), 0, SPEC, {})
    head = load_head(tmp_path, LinearHead())
    with pytest.raises(EncoderError, match="name"):
        head.probabilities(torch.zeros(2, 6), external_spec({"name": "another"}, 6))


def test_half_a_head_newer_formats_and_damage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no head\.json"):
        read_description(tmp_path)
    save_head(tmp_path, LinearHead().bank(1, 6), 0, SPEC, {})
    with pytest.raises(DataError, match="does not fit"):
        load_head(tmp_path, MLPHead(hidden=[3]))
    weights = tmp_path / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(DataError, match="does not fit"):
        load_head(tmp_path, LinearHead())
    description = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**description, "format": 2}))
    with pytest.raises(DataError, match="format 2"):
        read_description(tmp_path)
