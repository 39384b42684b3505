"""NudeNet as a published guard: a file of its form here, and the package's own where it is installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guardtrain.benchmarks.importing import read_published, save_published
from guardtrain.benchmarks.nudenet import NudeNet
from guardtrain.errors import ConfigError, EncoderError, GuardError
from guardtrain.guards.guard import Guard
from guardtrain.installing import install_line
from tests.encoders.detector import CLASSES, SIDE, wanted_scores, write_detector

EXPOSED = list(CLASSES[1:])


def test_unsafe_where_one_of_the_classes_is_seen_surely_enough(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "toy.onnx")
    kind = NudeNet(classes=EXPOSED, threshold=0.6)
    made = save_published(tmp_path / "guard", read_published(kind, path), onnx=False)
    assert (made.guard.name, made.guard.spec.name) == ("nudenet", "nudenet-toy")
    assert made.guard.about["imported"]["files"].keys() == {"toy.onnx"}
    rng = np.random.default_rng(0)
    images = np.broadcast_to(rng.integers(0, 256, (40, 1, 1, 3), dtype=np.uint8), (40, SIDE, SIDE, 3))
    highest = np.array([wanted_scores(image)[1:].max() for image in images])
    found = Guard.load(tmp_path / "guard").predict([Image.fromarray(image) for image in images])
    assert list(found.decision) == ["unsafe" if score >= 0.6 else "safe" for score in highest]
    assert 0 < (highest >= 0.6).sum() < 40
    odds = highest / (1 - highest) / (0.6 / 0.4)
    seen = highest > 1e-3
    np.testing.assert_allclose(found.probabilities[seen], (odds / (1 + odds))[seen], atol=1e-4)
    write_detector(path, seed=1)
    with pytest.raises(EncoderError, match="weights_sha256"):
        Guard.load(tmp_path / "guard").predict([Image.fromarray(images[0])])


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "toy.onnx")
    with pytest.raises(ConfigError, match="'FEET'; this detector finds FACE, ANUS_EXPOSED"):
        read_published(NudeNet(classes=["FEET"]), path)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        NudeNet(threshold=1.0)
    with pytest.raises(ConfigError, match="classes is empty"):
        NudeNet(classes=[])
    with pytest.raises(GuardError, match="there is no file"):
        read_published(NudeNet(), tmp_path / "none.onnx")
    if find_spec("nudenet") is None:
        with pytest.raises(GuardError, match=re.escape(install_line("nudenet"))):
            read_published(NudeNet(), NudeNet.default_file)


@pytest.mark.data
@pytest.mark.skipif(find_spec("nudenet") is None or find_spec("cv2") is None, reason="needs the package nudenet")
def test_the_packages_own_detections(data_dir: Path) -> None:
    from nudenet import NudeDetector

    from guardtrain.encoders.load import load_encoder

    published = read_published(NudeNet(), NudeNet.default_file)
    encoder, detector = load_encoder(published.spec), NudeDetector()
    assert published.spec.model_config is not None
    classes = published.spec.model_config["classes"]
    assert set(NudeNet().classes) < set(classes)
    names = (110, 120, 130, 141, 250, 281, 293, 353, 411, 470, 510, 598, 614, 617)  # the first three show nothing
    files = [data_dir / "fire" / "images" / "normal" / f"{name:04d}.jpg" for name in names]
    scores = 1 / (1 + np.exp(-encoder.encode_images([Image.open(file).convert("RGB") for file in files])))
    wanted = np.zeros_like(scores)
    for row, file in enumerate(files):
        for box in detector.detect(str(file)):
            place = row, classes.index(box["class"])
            wanted[place] = max(wanted[place], box["score"])
    clear = (wanted > 0.3) | (scores > 0.3)
    assert clear.sum() >= 11
    assert not clear[:3].any()
    np.testing.assert_allclose(scores[clear], wanted[clear], atol=0.05)
