"""What an attack sees of a guard is what the guard does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guardtrain.benchmarks.attacks.everyday import EVERYDAY
from guardtrain.benchmarks.attacks.target import Target, require_attackable
from guardtrain.encoders.geometry import image_geometry
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import GuardError
from guardtrain.guards.guard import Guard
from guardtrain.scenes import SceneSource
from guardtrain.sources.decoding import decode
from tests.guards.serving.small_guard import image_files
from tests.guards.toys import toy_guard


@pytest.fixture(scope="module")
def target(loaded: Guard) -> Target:
    return Target(loaded, "strict")


def test_margins_are_the_guards_own_and_their_slope_is_right(target: Target) -> None:
    files = image_files(8)
    pixels = target.pixels(files)
    logits = target.logits(files)
    labels = np.arange(8) % 2
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    margins = target.margins(x, torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(margins, np.where(labels, 1, -1) * (logits - target.point.threshold), atol=1e-4)
    np.testing.assert_array_equal(target.right(logits, labels), margins > 0)
    said = target.guard.predict(files, point="strict").decision
    assert [one == ("safe", "unsafe")[label] for one, label in zip(said, labels, strict=True)] == (margins > 0).tolist()
    # along its own slope, by finite differences
    leaf = x[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(target.margins(leaf, torch.ones(1, dtype=torch.int64)).sum(), leaf)
    step = 1e-2 * slope / slope.norm()
    one = torch.ones(1, dtype=torch.int64)
    with torch.no_grad():
        rise = float(target.margins(x[:1] + step, one) - target.margins(x[:1] - step, one))
    assert rise == pytest.approx(2e-2 * float(slope.norm()), rel=0.05)
    assert target.gives_gradient()


@pytest.mark.parametrize(("size", "crop_pct"), [(64, 0.875), (65, 0.9), (64, 1.0)])
def test_a_file_of_pixels_comes_back_as_these_pixels(size: int, crop_pct: float) -> None:
    """Encoders that resize to more than they crop would otherwise resample the adversarial pixels."""
    spec = EncoderSpec(
        "timm", "m", image_size=(size, size), resize_mode="shortest", interpolation="bilinear", crop_pct=crop_pct,
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    needed = (int(size / crop_pct),) * 2
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    file = Target.file_of(SimpleNamespace(encoder=SimpleNamespace(needed=needed)), pixels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(image_geometry(spec)(decode(file, needed)), pixels)


def test_what_cannot_be_attacked_says_why(tmp_path, loaded: Guard) -> None:
    with pytest.raises(GuardError, match=r"its encoder \(toy\) is not one that guardtrain can run"):
        require_attackable(toy_guard(tmp_path / "toy").guard)
    with pytest.raises(GuardError, match=r"leaves images to people.*strict, balanced, permissive"):
        require_attackable(loaded, "review")


def test_everyday_changes_do_what_they_say() -> None:
    image = SceneSource("test", 2, seed=3, size=100).image(0)
    change = {name: decode(EVERYDAY[name](image, value, "0\0a")) for name, value in _STRENGTHS.items()}
    assert {name: one.size for name, one in change.items()} == {
        "jpeg": (100, 100), "resize": (25, 25), "blur": (100, 100), "crop": (70, 70),
    }  # fmt: skip
    whole, piece = np.asarray(image), np.asarray(change["crop"])
    places = [
        (i, j) for i in range(31) for j in range(31) if (whole[i : i + 70, j : j + 70] == piece).all()
    ]  # a piece of the image itself
    assert places
    again = decode(EVERYDAY["crop"](image, 0.7, "0\0a"))
    assert (np.asarray(again) == piece).all(), "the same key, the same place"
    others = {EVERYDAY["crop"](image, 0.7, f"{seed}\0a") for seed in range(8)}
    assert len(others) > 1
    rough = len(EVERYDAY["jpeg"](image, 10, "")), len(EVERYDAY["jpeg"](image, 90, ""))
    assert rough[0] < rough[1]
    assert np.asarray(change["blur"]).std() < whole.std()


_STRENGTHS = {"jpeg": 30, "resize": 0.25, "blur": 0.02, "crop": 0.7}
