"""The packaged CLIP loads through stock open_clip, is small, and knows what it sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from guardtrain.scenes import DEMO_ENCODER, SceneSource
from guardtrain.scenes.train_encoder import (
    EncoderTraining,
    captioned_scenes,
    pixels,
    save,
    train,
)


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer as any user of open_clip gets them."""
    name = f"local-dir:{DEMO_ENCODER}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


def _top1(model: Any, images: np.ndarray, tokens: torch.Tensor) -> tuple[float, float]:
    with torch.inference_mode():
        image = model.encode_image(pixels(images), normalize=True)
        text = model.encode_text(tokens, normalize=True)
    assert torch.isfinite(image).all() and torch.isfinite(text).all()
    similarity, truth = image @ text.T, torch.arange(len(images))
    return (
        (similarity.argmax(1) == truth).float().mean().item(),
        (similarity.argmax(0) == truth).float().mean().item(),
    )


def test_package_is_small_and_documented() -> None:
    assert sum(f.stat().st_size for f in DEMO_ENCODER.iterdir()) <= 12_000_000
    figures = json.loads((DEMO_ENCODER / "training.json").read_text())
    assert figures["seconds"] < 1800
    assert figures["loss"][-1]["loss"] < figures["loss"][0]["loss"]


def test_own_preprocessing_is_that_of_training(encoder: tuple[Any, Any, Any]) -> None:
    source = SceneSource("real", 3)
    through_pil = torch.stack([encoder[1](source.image(i)) for i in range(3)])
    assert torch.allclose(through_pil, pixels(source.images(range(3))), atol=1e-5)


def test_it_finds_the_caption_of_scenes_it_has_not_seen(encoder: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = encoder
    images, captions, _ = captioned_scenes(10_000_000, 100, seed=0)  # far beyond what training used
    by_image, by_text = _top1(model, images, tokenizer(captions))
    assert by_image > 0.25 and by_text > 0.25  # chance is 0.005


def test_it_tells_halves_of_a_pair_apart_by_words(encoder: tuple[Any, Any, Any]) -> None:
    """Zero-shot: the half that shows a feature lies nearer to its name than the other half, as a rule."""
    model, _, tokenizer = encoder
    source = SceneSource("test", 200)
    words = [source.feature_name(i) for i in range(200)]
    with torch.inference_mode():
        image = model.encode_image(pixels(source.images(range(200))), normalize=True)
        text = model.encode_text(tokenizer(words), normalize=True)
    difference = ((image[1::2] - image[0::2]) * (text[1::2] - text[0::2])).sum(-1)
    assert (difference > 0).float().mean() > 0.75


@pytest.mark.apart
def test_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    settings = EncoderTraining(images=96, batch=32, held_out=32, threads=torch.get_num_threads())
    (first, figures), (second, _) = train(settings), train(settings)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    save(first, figures, tmp_path)
    loaded, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    x = pixels(SceneSource("real", 4).images(range(4)))
    with torch.inference_mode():
        kept, original = loaded.eval().encode_image(x, normalize=True), first.encode_image(x, normalize=True)
    assert kept.dtype == torch.float32
    assert torch.allclose(kept, original, atol=5e-3)
