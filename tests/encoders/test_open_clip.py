"""The open_clip adapter against open_clip itself."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from guardtrain.encoders import EncoderSettings, load_encoder
from guardtrain.encoders.encoder import Encoder
from guardtrain.errors import EncoderError


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> Encoder:
    return load_encoder(EncoderSettings(name="tiny", checkpoint=str(tiny_clip)))


@pytest.mark.parametrize("resize_mode", [None, "shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", [None, "bicubic"])
def test_images_as_open_clip_does_them(
    tiny_clip: Path, pictures: list[Image.Image], resize_mode: str | None, interpolation: str | None
) -> None:
    ours = load_encoder(
        EncoderSettings(checkpoint=str(tiny_clip), resize_mode=resize_mode, interpolation=interpolation)
    )
    model, preprocess = open_clip.create_model_from_pretrained(
        f"local-dir:{tiny_clip}", image_resize_mode=resize_mode, image_interpolation=interpolation
    )
    inputs = torch.stack([preprocess(p) for p in pictures])
    assert torch.equal(torch.stack([ours.preprocess(p) for p in pictures]), inputs)
    with torch.no_grad():
        expected = model.eval().encode_image(inputs, normalize=True).numpy()
    np.testing.assert_allclose(ours.encode_images(pictures), expected, atol=1e-6)


def test_text_as_open_clip_does_it(tiny_clip: Path, encoder: Encoder) -> None:
    texts = ["a drawn lamp", "smoke and flames", "x" * 500]
    model = open_clip.create_model(f"local-dir:{tiny_clip}").eval()
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(f"local-dir:{tiny_clip}")(texts), normalize=True)
    np.testing.assert_allclose(encoder.encode_text(texts), expected.numpy(), atol=1e-6)
    assert encoder.encode_text([]).shape == (0, 12)


def test_spec_and_shapes(encoder: Encoder, pictures: list[Image.Image]) -> None:
    embeddings = encoder.encode_images(pictures)
    assert embeddings.shape == (7, 12)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert (encoder.dim, encoder.spec.dim, encoder.spec.name) == (12, 12, "tiny")
    assert encoder.encode_images([]).shape == (0, 12)


def test_batch_size_does_not_matter(tiny_clip: Path, encoder: Encoder, pictures: list[Image.Image]) -> None:
    small = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), batch_size=2))
    np.testing.assert_allclose(small.encode_images(pictures), encoder.encode_images(pictures), atol=1e-6)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(32, 32), (40, 56)])
def test_uint8_batches_equal_pil(tiny_clip: Path, resize_mode: str, size: tuple[int, int]) -> None:
    encoder = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), resize_mode=resize_mode))
    images = np.random.default_rng(1).integers(0, 255, (5, *size, 3), dtype=np.uint8)
    assert encoder.accepts_batches(*size) == (size == (32, 32))
    by_pil = torch.stack([encoder.preprocess(Image.fromarray(image)) for image in images])
    torch.testing.assert_close(encoder.prepare(images), by_pil, atol=1e-6, rtol=0)


@pytest.mark.parametrize("array", [np.zeros((2, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8)])
def test_other_arrays_are_refused(encoder: Encoder, array: np.ndarray) -> None:
    with pytest.raises(EncoderError, match=r"must be \(B, H, W, 3\) uint8; this is \("):
        encoder.encode_images(array)


def test_quick_gelu_reaches_the_model(tiny_clip: Path, encoder: Encoder, pictures: list[Image.Image]) -> None:
    quick = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), quick_gelu=True))
    reference = open_clip.create_model(f"local-dir:{tiny_clip}", force_quick_gelu=True).eval()
    with torch.no_grad():
        expected = reference.encode_image(quick.prepare(pictures), normalize=True).numpy()
    np.testing.assert_allclose(quick.encode_images(pictures), expected, atol=1e-6)
    assert np.abs(quick.encode_images(pictures) - encoder.encode_images(pictures)).max() > 1e-4
    assert quick.spec.diff(encoder.spec) == ["quick_gelu: True, not False"]


def test_pooled_is_what_the_projection_takes(tiny_clip: Path, encoder: Encoder, pictures: list[Image.Image]) -> None:
    pooled = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), output="pooled", normalize=False))
    assert pooled.dim == 16
    projected = pooled.encode_images(pictures) @ encoder.model.visual.proj.numpy()
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(projected, encoder.encode_images(pictures), atol=1e-5)
    with pytest.raises(EncoderError, match="another space than its texts"):
        pooled.encode_text(["a"])


def test_bfloat16_is_near_and_recorded(tiny_clip: Path, encoder: Encoder, pictures: list[Image.Image]) -> None:
    half = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), dtype="bfloat16"))
    difference = np.abs(half.encode_images(pictures) - encoder.encode_images(pictures)).max()
    assert 0 < difference < 0.05
    assert half.spec.diff(encoder.spec) == ["dtype: 'bfloat16', not 'float32'"]


def test_image_size_resizes_model_and_preprocessing(tiny_clip: Path, pictures: list[Image.Image]) -> None:
    large = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), image_size=48))
    reference, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}", force_image_size=48)
    inputs = torch.stack([preprocess(p) for p in pictures])
    with torch.no_grad():
        expected = reference.eval().encode_image(inputs, normalize=True).numpy()
    np.testing.assert_allclose(large.encode_images(pictures), expected, atol=1e-6)


def test_loading_by_spec_checks_the_weights(tiny_clip: Path, tmp_path: Path, encoder: Encoder) -> None:
    assert load_encoder(encoder.spec).spec == encoder.spec
    copy = tmp_path / "copy"
    shutil.copytree(tiny_clip, copy)
    spec = load_encoder(EncoderSettings(checkpoint=str(copy))).spec
    weights = copy / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(EncoderError, match=r"is not the one wanted .* weights_sha256"):
        load_encoder(spec)


def test_the_model_is_frozen_and_in_eval_mode(encoder: Encoder) -> None:
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_weights_that_do_not_fit_are_named(tiny_clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_clip, copy)
    config = copy / "open_clip_config.json"
    config.write_text(config.read_text().replace('"embed_dim": 12', '"embed_dim": 13'))
    with pytest.raises(
        EncoderError, match=r"(?s)open_clip_model.safetensors do not fit the model local-dir:.*size mismatch"
    ):
        load_encoder(EncoderSettings(checkpoint=str(copy)))


def test_pickled_code_is_not_run(tiny_clip: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "open_clip_config.json").write_text((tiny_clip / "open_clip_config.json").read_text())
    torch.save({"state_dict": Trap()}, tmp_path / "open_clip_pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(EncoderError, match=r"holds code .* and is not loaded"):
        load_encoder(EncoderSettings(checkpoint=str(tmp_path)))
    assert not (tmp_path / "sprung").exists()


def test_a_configuration_open_clip_refuses(tiny_clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_clip, copy)
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["depth"] = 3
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="open_clip cannot build copy from its configuration"):
        load_encoder(EncoderSettings(checkpoint=str(copy)))


def test_unknown_devices_are_named(tiny_clip: Path) -> None:
    with pytest.raises(EncoderError, match="auto, cpu, cuda, cuda:N or mps; it is 'gpu'"):
        load_encoder(EncoderSettings(checkpoint=str(tiny_clip), device="gpu"))
    if not torch.cuda.is_available():
        with pytest.raises(EncoderError, match="torch sees no CUDA device"):
            load_encoder(EncoderSettings(checkpoint=str(tiny_clip), device="cuda"))
