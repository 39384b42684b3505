"""Pillow's and numpy's preparation of images against the libraries' own transforms, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guardtrain.encoders.geometry import image_geometry, resized_size, scaled
from guardtrain.encoders.preprocessing import batch_input, image_transform
from guardtrain.encoders.spec import INTERPOLATIONS, RESIZE_MODES, EncoderSpec
from guardtrain.guards.card import preparing

SIDES = st.integers(10, 90)  # a longer side that is eighty times the other has no pixel left of it


@st.composite
def specs(draw: st.DrawFn) -> EncoderSpec:
    family = draw(st.sampled_from(["open_clip", "timm", "nudenet"]))
    square = draw(st.booleans())
    height = draw(st.integers(8, 40))
    return EncoderSpec(
        family=family,
        model="any",
        image_size=(height, height if square or family == "nudenet" else draw(st.integers(8, 40))),
        resize_mode=draw(st.sampled_from(RESIZE_MODES)),
        interpolation=draw(st.sampled_from(INTERPOLATIONS[family])),
        mean=(0.48, 0.5, 0.41) if family != "nudenet" else (0.0, 0.0, 0.0),
        std=(0.2, 0.25, 0.3) if family != "nudenet" else (1.0, 1.0, 1.0),
        crop_pct=draw(st.sampled_from([1.0, 0.875, 0.95, 0.7])) if family == "timm" else None,
        fill_color=draw(st.sampled_from([0, 127])) if family == "open_clip" else None,
    )


@settings(max_examples=60)
@given(specs(), SIDES, SIDES, st.integers(0, 9))
def test_images_as_the_libraries_prepare_them(spec: EncoderSpec, height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = image_geometry(spec)(image)
    assert (found.shape, found.dtype) == ((*spec.image_size, 3), np.uint8)
    np.testing.assert_allclose(scaled(spec, found[None])[0], image_transform(spec)(image).numpy(), atol=1e-6)


@given(specs(), SIDES, SIDES)
def test_cards_say_how_to_prepare_an_image(spec: EncoderSpec, height: int, width: int) -> None:
    lines = preparing(spec)
    assert bool(lines) == (
        spec.family != "nudenet"
        and (spec.resize_mode == "squash" or resized_size(spec) == spec.image_size or spec.resize_mode == "shortest")
        and (spec.resize_mode != "shortest" or resized_size(spec)[0] == resized_size(spec)[1])
    )
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    names = {"Image": Image, "image": image}
    exec("\n".join(lines), names)
    if lines:
        np.testing.assert_array_equal(np.asarray(names["image"]), image_geometry(spec)(image))


@pytest.mark.parametrize("mean", [(0.48145466, 0.4578275, 0.40821073), (0.0, 0.0, 0.0)])
def test_pixels_are_scaled_as_torch_does_it(mean: tuple[float, float, float]) -> None:
    spec = EncoderSpec("timm", "any", mean=mean, std=(0.26862954, 0.26130258, 0.27577711))
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    found = scaled(spec, levels)
    torch.testing.assert_close(torch.from_numpy(found), batch_input(spec, levels).contiguous(), atol=1e-6, rtol=0)
    assert found.dtype == np.float32 and found.flags.c_contiguous
