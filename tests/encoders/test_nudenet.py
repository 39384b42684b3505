"""A detector as an encoder: its scores, its preprocessing against scipy's, its spec and what is refused."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from guardtrain.encoders.letterbox import letterbox
from guardtrain.encoders.load import load_encoder
from guardtrain.encoders.nudenet_adapter import FLOOR
from guardtrain.encoders.spec import EncoderSettings, settings_for
from guardtrain.errors import EncoderError
from tests.encoders.detector import CLASSES, SIDE, wanted_scores, write_detector


def settings(path: Path) -> EncoderSettings:
    return EncoderSettings(name="toy", family="nudenet", checkpoint=str(path), normalize=False)


def test_the_embedding_is_each_classes_surest_box(tmp_path: Path) -> None:
    encoder = load_encoder(settings(write_detector(tmp_path / "a.onnx")))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)
    images[:, :32, :32] = rng.integers(0, 256, (12, 1, 1, 3))  # cells that differ, or all means are alike
    images[:, 32:, 32:] = rng.integers(0, 256, (12, 1, 1, 3))
    wanted = np.stack([wanted_scores(image) for image in images]).clip(FLOOR, 1 - FLOOR)
    assert encoder.dim == len(CLASSES)
    assert (wanted > FLOOR).any(axis=0).all()
    assert (wanted == FLOOR).any(), "some class must have no box"
    for given in (images, [Image.fromarray(image) for image in images]):
        found = encoder.encode_images(given)
        np.testing.assert_allclose(1 / (1 + np.exp(-found.astype(float))), wanted, atol=1e-4)
    pixels = np.stack([encoder.pixels(Image.fromarray(image)) for image in images[:2]])
    assert (pixels == images[:2]).all()


def test_images_are_padded_at_the_right_and_below_and_sampled_as_opencv_does() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((50, 90), (90, 50), (20, 30), (40, 40)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = 255 * letterbox(40, 40)(Image.fromarray(image)).permute(1, 2, 0).numpy()
        side = max(height, width)
        square = np.zeros((side, side, 3))
        square[:height, :width] = image
        at = np.clip((np.arange(40) + 0.5) * side / 40 - 0.5, 0, side - 1)
        grid = np.meshgrid(at, at, indexing="ij")
        wanted = np.stack([map_coordinates(square[..., c], grid, order=1) for c in range(3)], axis=-1)
        np.testing.assert_allclose(found, wanted, atol=0.51)


def test_the_spec_is_of_the_file_and_finds_it_again(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "a.onnx")
    spec = load_encoder(settings(path)).spec
    assert (spec.image_size, spec.dim) == ((SIDE, SIDE), 3)
    assert spec.model_config is not None
    assert spec.model_config["classes"] == list(CLASSES)
    assert load_encoder(settings_for(spec)).spec == spec
    other = load_encoder(settings(write_detector(tmp_path / "b.onnx", seed=1))).spec
    assert [line.split(":")[0] for line in other.diff(replace(spec, model="b"))] == ["weights_sha256"]
    with pytest.raises(EncoderError, match="weights_sha256"):
        load_encoder(replace(spec, location=str(tmp_path / "b.onnx")))


def test_what_is_no_such_detector_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no program")
    unnamed = write_detector(tmp_path / "two.onnx", names=("FACE", "FEET"))
    for path, words in (
        (tmp_path / "none.onnx", "there is no file"),
        (tmp_path / "text.onnx", "is no ONNX program"),
        (unnamed, "7 numbers a box; 2 classes need 6"),
    ):
        with pytest.raises(EncoderError, match=words):
            load_encoder(settings(path))
    with pytest.raises(EncoderError, match="resize_mode=longest, and no other"):
        load_encoder(replace(settings(unnamed), resize_mode="squash"))
    with pytest.raises(EncoderError, match="reads no text"):
        load_encoder(settings(write_detector(tmp_path / "a.onnx"))).encode_text(["a"])
    if find_spec("nudenet") is None:
        with pytest.raises(EncoderError, match=r"\[nudenet\]"):
            load_encoder(EncoderSettings(family="nudenet", checkpoint="pkg://nudenet/320n.onnx", normalize=False))
