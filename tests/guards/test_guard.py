from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import ConfigError, EncoderError, GuardError
from guardtrain.guards.calibration import Identity
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.operating_points import OperatingPoint
from guardtrain.guards.settings import CategorySettings, ReviewSettings
from guardtrain.guards.validation import Validation
from guardtrain.heads import LinearHead
from guardtrain.heads.mlp import MLPHead
from tests.guards.toys import DIM, SPEC, toy_bank, toy_guard, toy_images, toy_run, toy_settings, toy_validation

DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder", device="cpu")


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    out = tmp_path_factory.mktemp("guards") / "toy"
    return toy_guard(
        out, neighbours=True, review=ReviewSettings(enabled=True), category_points=CategorySettings(enabled=True)
    ).guard


@pytest.fixture(scope="module")
def image_guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard on the demo encoder's embeddings of drawn colours: unsafe is red."""
    encoder = load_encoder(DEMO)
    images, labels = zip(*(_colour(i) for i in range(60)), strict=True)
    x = encoder.encode_images(list(images))
    direction = x[np.array(labels) == 1].mean(0) - x[np.array(labels) == 0].mean(0)
    bank = LinearHead().bank(1, encoder.dim)
    with torch.no_grad():
        bank.weight[0, :, 0] = torch.from_numpy(20 * direction)
        bank.bias[0, 0] = float(-20 * direction @ x.mean(0))
    run = replace(toy_run(bank.eval()), spec=encoder.spec, neighbours=None)
    names = np.arange(60).astype(str)
    categories = np.array(["paint", "light"])[np.arange(60) // 2 % 2]
    validation = Validation(x, np.array(labels), names, categories, "drawn colours")
    wanted = toy_settings(category_points=CategorySettings(enabled=True))
    return export_guard(tmp_path_factory.mktemp("guards") / "images", run, validation, wanted).guard


def _colour(i: int) -> tuple[Image.Image, int]:
    g = np.random.default_rng(i)
    rgb = g.integers(150, 255), *g.integers(0, 100, 2)
    label = i % 2
    return Image.new("RGB", (40 + i, 50), rgb if label else rgb[::-1]), label


def test_probabilities_are_the_calibrated_heads(guard: Guard) -> None:
    x, _ = toy_images(300, seed=9)
    bank = toy_bank()
    with torch.no_grad():
        logits = bank(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(guard.logits(x), logits, atol=1e-5)
    found = guard.probabilities(x, SPEC)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, guard.calibrator.probabilities(guard.logits(x)))
    assert not isinstance(guard.calibrator, Identity)  # the toy head is overconfident
    np.testing.assert_array_equal(guard.probabilities(torch.from_numpy(x)), found)
    np.testing.assert_allclose(guard.probabilities(x.astype(np.float16)), found, atol=5e-3)


def test_loaded_again_it_gives_the_same_bits(guard: Guard) -> None:
    again, (x, _) = Guard.load(guard.path), toy_images(5000, seed=3)
    np.testing.assert_array_equal(again.logits(x), guard.logits(x))
    np.testing.assert_array_equal(again.probabilities(x), guard.probabilities(x))
    assert again.points == guard.points
    assert again.calibration == guard.calibration
    assert again.category_points == guard.category_points
    assert again.spec == guard.spec == SPEC
    assert again.categories == ("blood", "fire")
    assert (again.default_point, list(again.points)) == ("balanced", ["strict", "balanced", "permissive", "review"])


def test_decisions_are_the_points(guard: Guard) -> None:
    x, _ = toy_images(200, seed=4)
    logits = guard.logits(x)
    for name in guard.points:
        found = guard.predict(x, point=name)
        point = guard.points[name]
        if isinstance(point, OperatingPoint):
            expected = np.where(logits >= point.threshold, "unsafe", "safe")
        else:
            expected = np.where(logits >= point.upper, "unsafe", np.where(logits < point.lower, "safe", "review"))
        assert found.decision == tuple(expected.tolist())
        np.testing.assert_array_equal(found.flagged, expected == "unsafe")
        assert found.point == name
    assert guard.predict(x).decision == guard.predict(x, point="balanced").decision
    assert set(guard.predict(x, point="review").decision) == {"safe", "unsafe", "review"}


def test_categories_have_thresholds_of_their_own(guard: Guard) -> None:
    x, _ = toy_images(50, seed=4)
    found = guard.predict(x).categories
    assert found is not None
    assert set(guard.category_points) == {"fire", "blood", "knife"}
    for row, logit in zip(found, guard.logits(x), strict=True):
        for name, point in guard.category_points.items():
            assert row[name] == ("unsafe" if logit >= point.threshold else "safe")
    assert len({point.threshold for point in guard.category_points.values()}) > 1


def test_the_nearest_training_images_explain(guard: Guard) -> None:
    train, labels = toy_images(40, seed=2)
    x, _ = toy_images(7, seed=8)
    found = guard.predict(x, explain=12).neighbours
    assert found is not None
    cosines = x.astype(np.float64) @ train.T.astype(np.float64)
    for row, near in zip(cosines, found, strict=True):
        order = np.argsort(-row)[:12]
        assert [one.id for one in near] == [f"train-{i}" for i in order]
        assert [one.label for one in near] == labels[order].tolist()
        assert [one.similarity for one in near] == pytest.approx(row[order].tolist(), abs=1e-6)
        assert [one.pair_id for one in near] == [f"p{i // 4}" if i % 2 else None for i in order]
    assert len(guard.predict(x[:1], explain=1000).neighbours[0]) == 40
    assert guard.predict(x).neighbours is None


def test_no_neighbours_without_training_images(tmp_path: Path) -> None:
    plain = toy_guard(tmp_path / "plain").guard
    x, _ = toy_images(2)
    with pytest.raises(GuardError, match="neighbours=true"):
        plain.predict(x, explain=1)
    assert plain.predict(x).categories is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :8], r"\(N, 16\).*\(4, 8\)"),
        (lambda x: x[0], r"embedding\[None\]"),
        (lambda x: 2 * x, "4 are not, the first is row 0 with norm 2"),
        (lambda x: np.where(np.arange(4)[:, None] == 2, np.nan, x), "1 of 4 .* row 2"),
        (lambda x: np.where(np.arange(4)[:, None] == 3, np.inf, x), "1 of 4 .* row 3"),
        (lambda x: (100 * x).astype(np.int64), "int64"),
    ],
    ids=["dimension", "one row", "norm", "nan", "infinite", "integers"],
)
def test_wrong_embeddings_are_refused(guard: Guard, change, words: str) -> None:
    x = change(toy_images(4)[0])
    for call in (guard.probabilities, guard.predict):
        with pytest.raises(GuardError, match=words):
            call(x)


def test_embeddings_of_another_encoder_are_refused_by_the_fields_that_differ(guard: Guard) -> None:
    with pytest.raises(EncoderError, match="normalize: False, not True"):
        guard.probabilities(toy_images(2)[0], replace(SPEC, normalize=False))


def test_an_unknown_point_is_refused_with_those_there_are(guard: Guard) -> None:
    with pytest.raises(ConfigError, match=r"'stict'.*strict, balanced, permissive, review"):
        guard.predict(toy_images(2)[0], point="stict")


def test_images_of_external_embeddings_are_refused(guard: Guard) -> None:
    with pytest.raises(EncoderError, match="only its embeddings are there"):
        guard.predict([Image.new("RGB", (4, 4))])


def test_nothing_in_nothing_out(guard: Guard) -> None:
    assert len(guard.predict(np.zeros((0, DIM), dtype=np.float32))) == 0
    assert len(guard.predict([])) == 0
    assert guard.probabilities(np.zeros((0, DIM))).shape == (0,)


def test_images_in_every_form_agree_and_one_that_cannot_be_read_does_not_stop_the_others(
    image_guard: Guard, tmp_path: Path
) -> None:
    image, _ = _colour(101)
    image.save(tmp_path / "red.png")
    broken, empty = tmp_path / "broken.png", tmp_path / "empty.jpg"
    broken.write_bytes((tmp_path / "red.png").read_bytes()[:60])
    empty.touch()
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    expected = image_guard.probabilities(load_encoder(DEMO).encode_images([image]))[0]
    assert expected > 0.5
    url = (tmp_path / "red.png").as_uri()
    inputs = [str(tmp_path / "red.png"), tmp_path / "red.png", url, image, encoded.getvalue(), image.convert("RGBA")]
    bad = [broken, empty, tmp_path / "missing.png", b"<html>"]
    found = image_guard.predict([*bad[:2], *inputs, *bad[2:]])
    good = slice(2, 2 + len(inputs))
    np.testing.assert_allclose(found.probabilities[good], expected, atol=1e-6)
    assert found.ids[:4] == (str(broken), str(empty), str(tmp_path / "red.png"), str(tmp_path / "red.png"))
    assert found.ids[5] == "5"
    assert [error is None for error in found.errors] == [False] * 2 + [True] * len(inputs) + [False] * 2
    assert found.decision[:2] == (None, None)
    assert np.isnan(found.probabilities[[0, 1, -2, -1]]).all()
    assert not found.flagged[[0, 1, -2, -1]].any()
    rows = list(found.rows())
    assert rows[0]["probability"] is None
    assert "empty" in rows[1]["error"]
    assert "No such file" in rows[-2]["error"]
    assert "not an image" in rows[-1]["error"]
    blue, _ = _colour(100)
    mixed = image_guard.predict([b"", image, b"", blue]).categories
    both = {"paint": "unsafe", "light": "unsafe"}
    assert mixed == ({}, both, {}, dict.fromkeys(both, "safe"))
    assert image_guard.predict(image).probabilities == pytest.approx([expected], abs=1e-6)
    pixels = np.asarray(image.resize((64, 64)))[None]
    assert image_guard.predict(np.concatenate([pixels, pixels])).probabilities.shape == (2,)
    with pytest.raises(GuardError, match="Input 0 is a int"):
        image_guard.predict([3])


def test_weights_that_are_elsewhere(image_guard: Guard) -> None:
    assert image_guard.spec.weights_sha256 is not None
    moved = Guard.load(image_guard.path, checkpoint="/nowhere/weights")
    assert len(moved.probabilities(np.eye(1, moved.dim))) == 1  # embeddings need no weights
    with pytest.raises(EncoderError, match=r"/nowhere/weights.*\n.*checkpoint=PATH"):
        moved.predict([_colour(0)[0]])
    assert len(Guard.load(image_guard.path, checkpoint=DEMO.checkpoint).predict([_colour(0)[0]])) == 1


def test_images_go_through_in_batches(image_guard: Guard) -> None:
    images = [_colour(i)[0] for i in range(7)]
    whole = image_guard.predict(images, ids=list("abcdefg"))
    small = Guard.load(image_guard.path, batch_size=2).predict(images)
    np.testing.assert_allclose(small.probabilities, whole.probabilities, atol=1e-6)
    assert small.ids == tuple("0123456")
    assert whole.ids == tuple("abcdefg")
    with pytest.raises(GuardError, match="7 inputs and 1 ids"):
        image_guard.predict(images, ids=["a"])


def test_an_mlp_and_its_bits(tmp_path: Path) -> None:
    bank = MLPHead(hidden=[8]).bank(1, DIM)
    bank.reset([3])
    definition = {"_target_": "guardtrain.heads.mlp.MLPHead", "hidden": [8]}
    made = export_guard(tmp_path / "mlp", toy_run(bank.eval(), definition), toy_validation(), toy_settings()).guard
    x, _ = toy_images(100, seed=3)
    with torch.no_grad():
        np.testing.assert_array_equal(made.logits(x), bank(torch.from_numpy(x))[0].double().numpy())
