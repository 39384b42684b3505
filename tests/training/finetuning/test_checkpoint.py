from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guardtrain.embeddings import EmbeddingStore, StoreSource, embed
from guardtrain.embeddings.cache import store_folder
from guardtrain.encoders import load_encoder, require_same, resolve_spec
from guardtrain.errors import EncoderError
from guardtrain.scenes import SceneSource
from guardtrain.training.finetuning.checkpoint import read_tuned, save_tuned, tuned_settings


@pytest.mark.parametrize("kind", ["resnet", "transformer", "pooled", "timm"])
def test_a_tuned_encoder_is_another_one_that_loads_as_any_does(load, settings_of, tmp_path: Path, kind: str) -> None:
    encoder, settings = load(kind), settings_of(kind)
    base = encoder.spec
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (70, 50, 3), dtype=np.uint8)) for _ in range(3)]
    frozen = encoder.encode_images(images)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.mul_(1.01)
    tuned = encoder.encode_images(images)
    save_tuned(tmp_path / "encoder", encoder, settings, "mine", {"key": "k"})
    found = tuned_settings(tmp_path / "encoder", settings)
    loaded = load_encoder(found)
    np.testing.assert_array_equal(loaded.encode_images(images), tuned)
    assert not np.array_equal(tuned, frozen)
    assert loaded.spec.fingerprint != base.fingerprint
    assert loaded.spec.label == "mine"
    # all that differs is whose weights they are: the preprocessing and the output are the base's
    differing = {line.partition(":")[0] for line in loaded.spec.diff(base)}
    assert "weights_sha256" in differing and differing <= {"weights_sha256", "model_config", "model", "pretrained"}
    with pytest.raises(EncoderError, match="weights_sha256"):
        require_same(base, loaded.spec)
    # by its spec alone, as a guard loads it
    np.testing.assert_array_equal(load_encoder(loaded.spec).encode_images(images), tuned)
    assert not [path for path in tmp_path.iterdir() if path.name != "encoder"]
    described = read_tuned(tmp_path / "encoder")
    assert described is not None and described["key"] == "k"
    assert described["base"]["fingerprint"] == base.fingerprint


def test_the_cache_of_the_frozen_encoder_is_out_of_play(load, settings_of, tmp_path: Path) -> None:
    encoder, settings = load("resnet"), settings_of("resnet")
    source = SceneSource(pool="test", n=8)
    frozen = embed(source, settings, tmp_path / "cache", progress=False)
    with torch.no_grad():
        encoder.model.visual.conv1.weight.add_(0.1)
    save_tuned(tmp_path / "encoder", encoder, settings, "demo", {"key": "k"})  # even under the very same name
    own = tuned_settings(tmp_path / "encoder", settings)
    tuned = embed(source, own, tmp_path / "cache", progress=False)
    assert np.abs(tuned.matrix - frozen.matrix).max() > 1e-3
    np.testing.assert_allclose(tuned.matrix, encoder.encode_images(source.images(range(8))), atol=1e-5)
    folders = {store_folder(tmp_path, spec, source.records(), "") for spec in (frozen.spec, tuned.spec)}
    assert len(folders) == 2
    # and a store on disk of the one is refused where the other is wanted
    specs = {
        json.loads(path.read_text())["fingerprint"]: path.parent for path in tmp_path.glob("cache/*/*/encoder.json")
    }
    assert set(specs) == {frozen.spec.fingerprint, tuned.spec.fingerprint}
    store = specs[frozen.spec.fingerprint]
    with pytest.raises(EncoderError, match="weights_sha256"):
        embed(StoreSource(path=str(store)), resolve_spec(own), tmp_path / "cache")
    with pytest.raises(EncoderError, match="weights_sha256"):
        EmbeddingStore.open(store).require(tuned.spec)


def test_a_tuned_encoder_is_replaced_whole(load, settings_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, settings = load("timm"), settings_of("timm")
    save_tuned(tmp_path / "encoder", encoder, settings, "one", {"key": "1"})
    before = {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()}
    import safetensors.torch

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(OSError, match="no space"):
            save_tuned(tmp_path / "encoder", encoder, settings, "two", {"key": "2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "encoder").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    save_tuned(tmp_path / "encoder", encoder, settings, "two", {"key": "2"})
    assert tuned_settings(tmp_path / "encoder", settings).name == "two"
    assert read_tuned(tmp_path) is None
