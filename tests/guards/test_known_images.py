"""Images that a guard was made of are known again, others are not; what is kept of them is small and never changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guardtrain.embeddings.sketches import sketched
from guardtrain.errors import GuardError
from guardtrain.guards.directory import KNOWN_IMAGES
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.known_images import KnownImages
from tests.guards.toys import toy_guard, toy_images, toy_run, toy_settings, toy_validation


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def moved(rows: np.ndarray, distance: float, g: np.random.Generator) -> np.ndarray:
    """Unit-norm rows about so far from unit-norm `rows`."""
    return unit(rows + distance * unit(g.normal(size=rows.shape)))


@pytest.mark.parametrize("dim", [64, 512, 1280])
def test_other_arithmetic_is_the_same_picture_and_a_small_change_of_the_picture_is_not(dim: int) -> None:
    g = np.random.default_rng(0)
    trained = unit(g.normal(size=(2000, dim)) + 1)  # as of CLIP, far from evenly spread
    known = KnownImages(sketched([trained]))
    for same in (
        trained.astype(np.float16),
        trained.astype(np.float32) * 12.5,  # features as they are instead of unit norm
        moved(trained, 1e-5, g),
        moved(trained, 0.012, g),  # a cosine of .9999, as bfloat16 gives
    ):
        found = known.trained_on(same)
        assert found is not None
        assert found.mean() > 0.999
    other = known.trained_on(moved(trained, 0.06, g))
    assert other is not None
    assert not other.any()


def test_directions_never_change_and_every_image_takes_32_bytes(tmp_path: Path) -> None:
    """The signs are the bits of a generator whose stream numpy promises to keep; guards that are out depend on them."""
    signs = ["".join("+" if value > 0 else "-" for value in row) for row in sketched([np.eye(4, 8)])]
    assert signs == SIGNS
    parts = [np.eye(4, 8), 3 * np.eye(4, 8)]
    np.testing.assert_array_equal(sketched(parts), np.concatenate([sketched([np.eye(4, 8)])] * 2))
    KnownImages(sketched([np.random.default_rng(0).normal(size=(5000, 8))])).write(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < 32 * 5000 + 200


SIGNS = ["++-+++--++-+---+", "--+-++----+-+--+", "++--+-+--+-+---+", "-+-+-+-++-+-+---"]


def test_what_is_not_known_is_not_taken_for_known(tmp_path: Path) -> None:
    x, _ = toy_images(20)
    none, empty = KnownImages(), KnownImages(sketched([]), sketched([x]))
    assert none.trained_on(x) is None
    assert none.fitted_on(x) is None
    assert empty.trained_on(x).tolist() == [False] * 20  # type: ignore[union-attr]
    assert empty.fitted_on(x[:0]).shape == (0,)  # type: ignore[union-attr]
    none.write(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    empty.write(tmp_path / "a")
    again = KnownImages.read(tmp_path / "a")
    assert again.trained is not None
    assert len(again.trained) == 0
    np.testing.assert_array_equal(again.fitted, empty.fitted)
    (tmp_path / "b").write_bytes(b"x")
    with pytest.raises(GuardError, match="cannot be read"):
        KnownImages.read(tmp_path / "b")
    KnownImages(np.zeros((3, 4), dtype=np.float16)).write(tmp_path / "c")
    with pytest.raises(GuardError, match=r"trained of shape \(3, 4\)"):
        KnownImages.read(tmp_path / "c")


def test_a_guard_keeps_its_training_images_and_those_its_thresholds_come_from(tmp_path: Path) -> None:
    x, _ = toy_images(40, seed=2)  # the toy run's
    validation = toy_validation()
    run = replace(toy_run(), known=sketched([x]))
    guard = export_guard(tmp_path / "guard", run, validation, toy_settings()).guard
    other, _ = toy_images(30, seed=9)
    rows = np.concatenate([other, x[:7]])
    assert guard.known_images.trained_on(rows).tolist() == [False] * 30 + [True] * 7  # type: ignore[union-attr]
    assert guard.known_images.fitted_on(validation.embeddings).all()  # type: ignore[union-attr]
    assert not guard.known_images.fitted_on(rows).any()  # type: ignore[union-attr]
    assert "whoever has an image can tell whether it is among them" in (guard.path / "README.md").read_text()
    # a run whose images are not at hand, and a guard from before they were kept
    unknown = toy_guard(tmp_path / "unknown").guard
    assert unknown.known_images.trained_on(x) is None
    assert unknown.known_images.fitted is not None
    earlier = Guard.load(_without(unknown, tmp_path / "earlier"))
    assert earlier.known_images.fitted is None
    np.testing.assert_array_equal(earlier.logits(x), unknown.logits(x))


def _without(guard: Guard, out: Path) -> Path:
    """The guard as it was written before images were kept."""
    from guardtrain.guards.hub import stage

    config = dict(guard.about)
    config["files"] = {name: said for name, said in config["files"].items() if name != KNOWN_IMAGES}
    return stage(guard.path, config, out)
