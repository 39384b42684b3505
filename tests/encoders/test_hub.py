"""Hub files: used from the cache without a network, and an error with the ways out where they are not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from guardtrain.encoders import EncoderSettings, load_encoder, resolve
from guardtrain.encoders.hub import hub_file
from guardtrain.errors import EncoderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds the tiny CLIP as `org/tiny`."""
    repo = tmp_path / "models--org--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    shutil.copytree(tiny_clip, repo / "snapshots" / COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_cached_hub_model_is_its_folder(hub: Path, tiny_clip: Path) -> None:
    encoder = load_encoder(EncoderSettings(model="hf-hub:org/tiny"))
    assert encoder.spec.model == "hf-hub:org/tiny"
    assert encoder.spec.pretrained == COMMIT
    local = load_encoder(EncoderSettings(checkpoint=str(tiny_clip)))
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    assert (encoder.encode_images(images) == local.encode_images(images)).all()
    assert (encoder.encode_text(["a lamp"]) == local.encode_text(["a lamp"])).all()
    assert load_encoder(encoder.spec).spec == encoder.spec


def test_a_hub_model_with_weights_of_ones_own_is_another_encoder(hub: Path, tiny_clip: Path, tmp_path: Path) -> None:
    name = "open_clip_model.safetensors"
    own = tmp_path / name
    weights = load_file(tiny_clip / name)
    save_file(weights | {"visual.proj": weights["visual.proj"] * 2}, own)
    published = load_encoder(EncoderSettings(model="hf-hub:org/tiny"))
    tuned = load_encoder(EncoderSettings(model="hf-hub:org/tiny", checkpoint=str(own), normalize=False))
    assert tuned.spec.weights_sha256 == hashlib.sha256(own.read_bytes()).hexdigest()
    same = replace(published.spec, normalize=False)
    assert tuned.spec.fingerprint != same.fingerprint
    again = load_encoder(tuned.spec)  # as a guard does, from its config alone
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    assert (again.encode_images(images) == tuned.encode_images(images)).all()
    assert not np.allclose(tuned.encode_images(images), load_encoder(same).encode_images(images))


def test_a_cached_tag(hub: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip
    from open_clip import factory, pretrained

    config = json.loads((tiny_clip / "open_clip_config.json").read_text())["model_cfg"]
    package = tmp_path / "package"
    (package / "model_configs").mkdir(parents=True)
    (package / "model_configs" / "Tiny.json").write_text(json.dumps(config))
    monkeypatch.setattr(resolve, "_open_clip_package", lambda: package)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny", config)
    tag = {"hf_hub": "org/tiny/", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "quick_gelu": True}
    monkeypatch.setitem(pretrained._PRETRAINED, "Tiny", {"mine": tag})
    encoder = load_encoder(EncoderSettings(model="Tiny", pretrained="mine"))
    assert encoder.spec.quick_gelu is True

    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    reference = open_clip.create_model(
        "Tiny", pretrained=str(tiny_clip / "open_clip_model.safetensors"), force_quick_gelu=True
    ).eval()
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    expected = reference.encode_image(encoder.prepare(images), normalize=True).detach().numpy()
    np.testing.assert_allclose(encoder.encode_images(images), expected, atol=1e-6)


def test_offline_the_error_names_the_ways_out_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    for settings, named, repo in (
        (
            EncoderSettings(model="ViT-B-32", pretrained="openai"),
            "open_clip ViT-B-32 (openai)",
            "timm/vit_base_patch32_clip_224.openai",
        ),
        (
            EncoderSettings(family="timm", model="mobilenetv2_100"),
            "timm mobilenetv2_100.ra_in1k",
            "timm/mobilenetv2_100.ra_in1k",
        ),
        (EncoderSettings(model="hf-hub:org/none"), "open_clip hf-hub:org/none", "org/none"),
    ):
        with pytest.raises(EncoderError) as caught:
            load_encoder(settings)
        assert not asked, "nobody waits for an answer"
        message = str(caught.value)
        assert f"The weights of {named} are not on this machine" in message
        assert "HF_HUB_OFFLINE" in message
        assert f"looked in: {tmp_path}" in message
        assert f"hf download {repo} " in message
        assert "encoder.checkpoint=" in message
        assert "encoder=demo" in message


def test_without_a_network_it_does_not_try_for_long(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "waited = [0]\n"
        "time.sleep = waited.append\n"
        "from guardtrain.encoders.hub import hub_file\n"
        "from guardtrain.errors import EncoderError\n"
        "try: hub_file('org/none', ['a.bin'], 'the model m')\n"
        "except EncoderError as error: print(error)\n"
        "print(sum(waited))"
    )
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, cwd=Path.cwd()
    )
    assert "The weights of the model m are not on this machine, and the hub cannot be reached" in done.stdout
    assert float(done.stdout.splitlines()[-1]) < 5, "seconds between tries"


def test_a_name_that_cannot_be_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"'a/b/c' \(x\) is not a hub repository's name"):
        hub_file("a/b/c", ["f"], "x")
