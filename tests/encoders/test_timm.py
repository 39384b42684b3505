"""The timm adapter against timm itself, and against the published reference of the MobileNetV2 weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from guardtrain.encoders import EncoderSettings, load_encoder
from guardtrain.encoders.encoder import Encoder
from guardtrain.errors import EncoderError


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
