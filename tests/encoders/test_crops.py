"""Embeddings that are means over an image and its corners: against PIL, open_clip and timm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from guardtrain.encoders import EncoderSettings, load_encoder
from guardtrain.encoders.crops import with_corners
from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.spec import EncoderSpec, external_spec, require_same, settings_for
from guardtrain.errors import EncoderError

CORNERS = ((0, 0), (0, -1), (-1, 0), (-1, -1))


def five_by_pil(image: np.ndarray, share: float) -> list[np.ndarray]:
    """The image, (3, H, W) float32, and its corners, each colour an image of PIL's 32-bit mode."""
    height, width = image.shape[1:]
    h, w = round(share * height), round(share * width)
    boxes = [(x, y, x + w, y + h) for y in (0, height - h) for x in (0, width - w)]
    colours = [Image.fromarray(colour) for colour in image]
    bilinear = Image.Resampling.BILINEAR
    return [image, *(np.stack([c.crop(box).resize((width, height), bilinear) for c in colours]) for box in boxes)]


@pytest.mark.parametrize(("height", "width", "share"), [(32, 32, 0.85), (24, 40, 0.5), (7, 5, 0.01)])
def test_corners_are_cut_and_enlarged_as_pil_does(height: int, width: int, share: float) -> None:
    images = np.random.default_rng(0).normal(size=(3, 3, height, width)).astype(np.float32)
    found = with_corners(torch.from_numpy(images), share).unflatten(0, (5, 3))
    if share == 0.01:  # at least a pixel
        expected = [images[1], *(np.broadcast_to(images[1][:, [y], [x], None], (3, 7, 5)) for y, x in CORNERS)]
    else:
        expected = five_by_pil(images[1], share)
    np.testing.assert_allclose(found[:, 1], np.stack(expected), atol=1e-5)


@pytest.mark.parametrize(("family", "normalize"), [("open_clip", True), ("timm", False)])
def test_the_embedding_is_the_mean_over_image_and_corners(
    tiny_clip: Path, tiny_timm: Path, pictures: list[Image.Image], family: str, normalize: bool
) -> None:
    settings = EncoderSettings(checkpoint=str(tiny_clip), crops=5, crop_share=0.75, normalize=normalize, device="cpu")
    features: Callable[[torch.Tensor], torch.Tensor]
    if family == "open_clip":
        features = open_clip.create_model(f"local-dir:{tiny_clip}").eval().encode_image
    else:
        settings = replace(settings, family="timm", model="test_vit", checkpoint=str(tiny_timm))
        features = timm.create_model("test_vit", num_classes=7, checkpoint_path=str(tiny_timm)).eval()
        features.reset_classifier(0)  # type: ignore[attr-defined]
    encoder = load_encoder(settings)
    expected = []
    with torch.no_grad():
        for picture in pictures[:3]:
            five = torch.from_numpy(np.stack(five_by_pil(encoder.preprocess(picture).numpy(), 0.75)))
            each = features(five).numpy()
            mean = (each / np.linalg.norm(each, axis=1, keepdims=True) if normalize else each).mean(0)
            expected.append(mean / np.linalg.norm(mean) if normalize else mean)
    np.testing.assert_allclose(encoder.encode_images(pictures[:3]), expected, atol=1e-5)
    pixels = torch.from_numpy(np.stack([encoder.pixels(picture) for picture in pictures[:3]]))
    np.testing.assert_allclose(encoder.forward(pixels), expected, atol=1e-5)
    once = load_encoder(replace(settings, crops=1)).encode_images(pictures[:3])
    assert np.abs(once - expected).max() > 1e-3


def test_the_spec_says_so_and_finds_it_again(tiny_clip: Path, pictures: list[Image.Image]) -> None:
    one = resolve_spec(EncoderSettings(checkpoint=str(tiny_clip)))
    five = load_encoder(EncoderSettings(checkpoint=str(tiny_clip), crops=5, crop_share=0.9, device="cpu"))
    assert (five.spec.crops, five.spec.crop_share) == (5, 0.9)
    assert "crops" not in one.to_dict() and "crop_share" not in one.to_dict()
    # a share without corners is no other encoder
    assert resolve_spec(EncoderSettings(checkpoint=str(tiny_clip), crop_share=0.5)).fingerprint == one.fingerprint
    read = EncoderSpec.from_json(five.spec.to_json())
    assert read == five.spec
    assert (load_encoder(read).encode_images(pictures[:2]) == five.encode_images(pictures[:2])).all()
    assert settings_for(one).crops == 1
    assert external_spec({"crops": 7}, 12).model_kwargs == {"crops": 7}  # of other people's encoders, what they say
    assert five.rows_a_pass == 256 // 5  # and of a larger batch what a processor's caches hold of images with corners
    large = replace(settings_for(five.spec), batch_size=2000, device="cpu")
    assert load_encoder(large).rows_a_pass == 2**19 // (5 * 32 * 32)
    with pytest.raises(EncoderError, match=r"differ in crops: 5, not 1; crop_share: 0\.9, not None"):
        require_same(five.spec, one)
