"""The timm adapter against timm itself, and against the published reference of the MobileNetV2 weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from guardtrain.benchmarks.reading import read_arrays
from guardtrain.config import conf_dir
from guardtrain.encoders import EncoderSettings, load_encoder
from guardtrain.encoders.encoder import Encoder
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.errors import EncoderError, GuardError


def load(file: Path, **settings: object) -> Encoder:
    return load_encoder(EncoderSettings(family="timm", model="test_vit", checkpoint=str(file), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("crop_pct", [None, 1.0, 0.7])
def test_images_as_timm_does_them(
    tiny_timm: Path, pictures: list[Image.Image], mode: str, crop_pct: float | None
) -> None:
    ours = load(tiny_timm, resize_mode=mode, crop_pct=crop_pct, normalize=False)
    model = timm.create_model("test_vit", num_classes=7, checkpoint_path=str(tiny_timm)).eval()
    model.reset_classifier(0)
    config = timm.data.resolve_model_data_config(
        model, args={"crop_mode": {"shortest": "center", "longest": "border"}.get(mode, mode), "crop_pct": crop_pct}
    )
    transform = timm.data.create_transform(**config, is_training=False)
    inputs = torch.stack([transform(p.convert("RGB")) for p in pictures])
    assert torch.equal(torch.stack([ours.preprocess(p) for p in pictures]), inputs)
    with torch.no_grad():
        expected = model(inputs).numpy()
    np.testing.assert_allclose(ours.encode_images(pictures), expected, atol=1e-5)


def test_uint8_batches_equal_pil(tiny_timm: Path) -> None:
    images = np.random.default_rng(1).integers(0, 255, (2, 160, 160, 3), dtype=np.uint8)
    whole, cropped = load(tiny_timm, crop_pct=1.0), load(tiny_timm, crop_pct=0.9)
    assert whole.accepts_batches(160, 160)
    assert not cropped.accepts_batches(160, 160)
    for encoder in (whole, cropped):
        by_pil = torch.stack([encoder.preprocess(Image.fromarray(image)) for image in images])
        torch.testing.assert_close(encoder.prepare(images), by_pil, atol=1e-6, rtol=0)


def test_a_file_without_the_classifier_loads_too(tiny_timm: Path, tmp_path: Path, pictures: list[Image.Image]) -> None:
    state = {k: v for k, v in load_file(tiny_timm).items() if not k.startswith("head.")}
    save_file(state, tmp_path / "headless.safetensors")
    encoder = load(tmp_path / "headless.safetensors")
    assert (encoder.encode_images(pictures) == load(tiny_timm).encode_images(pictures)).all()


def test_weights_that_do_not_fit_are_named(tiny_timm: Path, tmp_path: Path) -> None:
    state = load_file(tiny_timm)
    state.pop("cls_token")
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(EncoderError, match=r"part.safetensors do not fit the model test_vit:\n.*\n.*cls_token"):
        load(tmp_path / "part.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(EncoderError, match="cannot be read"):
        load(tmp_path / "no.safetensors")


def test_what_timm_changes_before_it_loads_is_changed_here(
    tiny_timm: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    """DINOv2 is published with a mask token and for images of another size."""
    file = tmp_path / "published.pth"
    torch.save(load_file(tiny_timm) | {"mask_token": torch.zeros(1, 64)}, file)
    ours = load(file, image_size=96, normalize=False)
    overlay = {"file": str(file), "num_classes": 7}
    model = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7, img_size=96
    ).eval()
    model.reset_classifier(0)
    inputs = torch.stack([ours.preprocess(p) for p in pictures])
    assert inputs.shape[-1] == 96
    with torch.no_grad():
        expected = model(inputs).numpy()
    np.testing.assert_allclose(ours.encode_images(pictures), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["timm/test_vit.r160_in1k", "hf-hub:timm/test_vit", "hf_hub:timm/test_vit"])
def test_timms_own_models_under_the_hubs_names(tiny_timm: Path, name: str) -> None:
    named = resolve_spec(EncoderSettings(family="timm", model=name, checkpoint=str(tiny_timm), name="x"))
    assert named == resolve_spec(EncoderSettings(family="timm", model="test_vit", checkpoint=str(tiny_timm), name="x"))
    with pytest.raises(EncoderError, match=r"no model 'org/other'. .*encoder.model=hf-hub:org/other"):
        resolve_spec(EncoderSettings(family="timm", model="org/other"))


@pytest.fixture
def saved(tiny_timm: Path, tmp_path: Path) -> Path:
    """A model as timm itself saves one: its configuration beside its weights."""
    folder = tmp_path / "saved"
    model = timm.create_model("test_vit", num_classes=7, checkpoint_path=str(tiny_timm))
    timm.models.save_for_hf(model, folder, model_config={"pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}})
    return folder


def test_a_folder_and_a_repository_of_ones_own(
    saved: Path, tiny_timm: Path, tmp_path: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(tiny_timm, mean=[0.1, 0.2, 0.3]).encode_images(pictures)
    folder = load_encoder(EncoderSettings(family="timm", model=f"local-dir:{saved}"))
    assert (folder.encode_images(pictures) == expected).all()
    assert folder.spec.name == "saved"
    assert load_encoder(folder.spec).spec == folder.spec
    assert load_encoder(EncoderSettings(family="timm", checkpoint=str(saved))).spec.fingerprint == (
        folder.spec.fingerprint
    )
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "cache/models--org--nsfw"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    shutil.copytree(saved, repo / "snapshots" / commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for model in ("hf-hub:org/nsfw", "hf_hub:org/nsfw"):
        hub = load_encoder(EncoderSettings(family="timm", model=model))
        assert (hub.encode_images(pictures) == expected).all()
        assert (hub.spec.model, hub.spec.pretrained) == ("hf-hub:org/nsfw", commit)
        assert load_encoder(hub.spec).spec == hub.spec


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git-LFS pointer.*`git lfs pull`"),
        (b"\n<!DOCTYPE html><html><head></head></html>", "is an HTML page.*`hf download`"),
    ],
    ids=["pointer", "page"],
)
def test_what_was_saved_in_the_place_of_weights_is_named(
    content: bytes, message: str, saved: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(EncoderError, match=message):
        load(file)
    with pytest.raises(EncoderError, match=message):
        resolve_spec(EncoderSettings(model="ViT-B-32", checkpoint=str(file)))
    with pytest.raises(GuardError, match=message):
        read_arrays(file)
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(EncoderError, match=message):
        resolve_spec(EncoderSettings(family="timm", checkpoint=str(saved)))


def test_timm_reads_no_text(tiny_timm: Path) -> None:
    with pytest.raises(EncoderError, match="reads no text: only CLIP models"):
        load(tiny_timm, name="test_vit").encode_text(["a"])


def test_a_refused_argument_is_shown(tiny_timm: Path) -> None:
    with pytest.raises(EncoderError, match=r"timm cannot build test_vit with \{'padding': 3\}"):
        load(tiny_timm, model_kwargs={"padding": 3})


@pytest.mark.data
def test_mobilenet_equals_the_published_reference(data_dir: Path) -> None:
    weights = data_dir / "encoders/mobilenetv2_100_from_coral_ptq_fp16.safetensors"
    arguments = {"pad_type": "same", "num_classes": 1001}
    encoder = load_encoder(
        EncoderSettings(
            family="timm",
            model="mobilenetv2_100",
            checkpoint=str(weights),
            mean=[127 / 255] * 3,
            std=[0.5] * 3,
            crop_pct=1.0,
            normalize=False,
            model_kwargs=arguments,
        )
    )
    model = timm.create_model("mobilenetv2_100", **arguments)
    model.load_state_dict(load_file(weights))
    images = np.random.default_rng(2).integers(0, 255, (3, 224, 224, 3), dtype=np.uint8)
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 127.5
    with torch.no_grad():
        expected = model.eval().forward_features(inputs).mean((2, 3)).numpy()
    assert encoder.dim == 1280
    np.testing.assert_allclose(encoder.encode_images(images), expected, atol=1e-4)


@pytest.mark.data
def test_the_encoder_mobilenetv2_prepares_photographs_as_those_behind_the_mask_features(data_dir: Path) -> None:
    """Squashed to the square, bicubic, nothing cropped; checked on photographs that are not square."""
    settings = yaml.safe_load((conf_dir() / "encoder" / "mobilenetv2.yaml").read_text())
    settings["checkpoint"] = settings["checkpoint"].replace("${data_dir}", str(data_dir))
    encoder = load_encoder(EncoderSettings(**settings, device="cpu"))
    model = timm.create_model(settings["model"], **settings["model_kwargs"])
    model.load_state_dict(load_file(settings["checkpoint"]))
    files = sorted((data_dir / "fire/images").rglob("*.jpg"))[::160]
    photographs = [Image.open(file).convert("RGB") for file in files]
    assert all(image.width != image.height for image in photographs)
    squashed = [np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) for image in photographs]
    inputs = (torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2).float() - 127) / 127.5
    with torch.no_grad():
        expected = model.eval().forward_features(inputs).mean((2, 3)).numpy()
    np.testing.assert_allclose(encoder.encode_images(photographs), expected, atol=1e-4)
