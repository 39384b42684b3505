"""The category head: fitted, measured, written, loaded and used, beside scikit-learn's own figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from guardtrain.benchmarks.calibrating import calibrate_guard
from guardtrain.errors import DataError, GuardError
from guardtrain.guards.category_fit import CategoryImages, category_report, fit_categories
from guardtrain.guards.category_head import CategoryHead
from guardtrain.guards.directory import write_config
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.thresholds_rates import clopper_pearson
from tests.guards.test_onnx import beside_a_store
from tests.guards.toys import DIM, toy_bank, toy_run, toy_settings, toy_validation

NAMES = ["blood", "fire", "knife"]


def drawn(n: int, seed: int, names: list[str] = NAMES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings (n, D), labels and categories; an unsafe image lies near the axis of its category."""
    g = np.random.default_rng(seed)
    labels, kind = g.integers(0, 2, n), g.integers(0, len(names), n)
    x = g.normal(size=(n, DIM)).astype(np.float32)
    x[:, 0] += 2 * labels
    x[np.arange(n), 1 + kind] += 2.5 * labels
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels, np.array(names, dtype=object)[kind]


def images(n: int, seed: int, names: list[str] = NAMES) -> CategoryImages:
    return CategoryImages.of(*drawn(n, seed, names), np.arange(n).astype(str))


def validation(n: int = 300, names: list[str] = NAMES):
    x, labels, categories = drawn(n, 1, names)
    return replace(toy_validation(n), embeddings=x, labels=labels, categories=categories)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """With `categories.onnx`; 'rare' has three training images and no name."""
    x, labels, categories = drawn(300, 0)
    categories[np.flatnonzero(labels)[:3]] = "rare"
    known = CategoryImages.of(x, labels, categories, np.arange(300).astype(str))
    out = tmp_path_factory.mktemp("guards") / "categories"
    run = toy_run(toy_bank())
    return export_guard(out, replace(run, categorised=known), validation(), toy_settings(onnx=True)).guard


@pytest.mark.parametrize("names", [NAMES[:2], NAMES], ids=["two", "three"])
def test_the_head_is_scikit_learns(names: list[str]) -> None:
    train, held_out = images(300, 0, names), images(200, 1, names)
    found = fit_categories(train, held_out, 20)
    mean = train.embeddings.mean(0)
    scale = np.sqrt(np.square(train.embeddings - mean).mean())
    model = LogisticRegression(C=1 / found.l2, tol=1e-8, max_iter=5000).fit(
        (train.embeddings - mean) / scale, train.names
    )
    expected = model.predict_proba((held_out.embeddings - mean) / scale)
    ours = found.head.probabilities(held_out.embeddings)
    assert list(found.head.names) == model.classes_.tolist() == names
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    report, named = found.report, np.array(names)[ours.argmax(1)]
    assert report.accuracy.value == pytest.approx(accuracy_score(held_out.names, named))
    assert report.confusion == tuple(map(tuple, confusion_matrix(held_out.names, named).tolist()))
    assert report.log_loss == pytest.approx(log_loss(held_out.names, ours))
    right = int((named == held_out.names).sum())
    low, high = clopper_pearson(right, right, len(named))
    assert (report.accuracy.low, report.accuracy.high) == pytest.approx((low, high))
    assert report.better_than_one_name


def test_the_penalty_is_the_best_on_images_left_out() -> None:
    """Where categories say nothing, the strongest; and folds keep groups whole: copies would make it weak."""
    g = np.random.default_rng(0)
    x = np.repeat(g.normal(size=(60, DIM)), 4, axis=0).astype(np.float32)
    names = np.repeat(g.permutation(np.array(NAMES)[np.arange(60) % 3]), 4)
    noise = CategoryImages(x, names, np.repeat(np.arange(60), 4).astype(str))
    found = fit_categories(noise, images(100, 1), 20)
    assert found.l2 == 1000.0
    assert found.images == dict.fromkeys(NAMES, 20)  # independent ones
    assert not found.report.better_than_one_name
    with pytest.raises(DataError, match="blood 20, fire 20, knife 20"):
        fit_categories(noise, images(100, 1), 21)


def test_only_unsafe_images_with_a_category_count() -> None:
    x, labels, categories = drawn(50, 0)
    categories[:10] = None
    found = CategoryImages.of(x, labels, categories, np.arange(50))
    rows = np.flatnonzero((labels == 1) & (np.arange(50) >= 10))
    np.testing.assert_array_equal(found.embeddings, x[rows])
    assert found.names.tolist() == categories[rows].tolist()
    head = CategoryHead(tuple(NAMES[:2]), np.zeros((2, DIM), np.float32), np.zeros(2, np.float32))
    report = category_report(head, found, {"blood": 1, "fire": 2}, others=4)
    assert report.others == 4 + int((found.names == "knife").sum())
    assert report.accuracy.of == len(rows) - int((found.names == "knife").sum())
    assert report.commonest == pytest.approx((found.names == "fire").sum() / report.accuracy.of)


def test_predictions_name_the_category_of_what_is_not_safe(guard: Guard) -> None:
    x, labels, categories = drawn(200, 2)
    found = guard.predict(x)
    assert found.category_names == tuple(NAMES)
    assert found.category is not None and found.category_probabilities is not None
    np.testing.assert_allclose(found.category_probabilities.sum(1), 1)
    np.testing.assert_array_equal(found.category_probabilities, guard.category_probabilities(x))
    best = np.array(NAMES)[found.category_probabilities.argmax(1)]
    assert found.category == tuple(best[i] if flag else None for i, flag in enumerate(found.flagged))
    unsafe = labels == 1
    assert (best[unsafe] == categories[unsafe]).mean() > 0.8
    row = next(found.rows())
    assert row["category"] == found.category[0]
    assert row["category_probabilities"] == dict(zip(NAMES, found.category_probabilities[0].tolist(), strict=True))
    nothing = guard.predict(np.zeros((0, DIM), np.float32))
    assert nothing.category == () and nothing.category_probabilities.shape == (0, 3)


def test_what_the_guard_says_of_it(guard: Guard) -> None:
    said, card = guard.about["category_head"], (guard.path / "README.md").read_text()
    assert guard.about["format"] == 2
    assert said["left_out"] == {"rare": 3}
    assert "fewer than 20 unsafe training images" in " ".join(guard.about["notes"])
    assert "rare (3)" in card
    confusion = said["validation"]["confusion"]
    assert np.sum(confusion) == said["validation"]["accuracy"]["of"] == int(validation().labels.sum())
    assert f"| 1 blood | {said['images']['blood']} | {' | '.join(map(str, confusion[0]))} |" in card
    (figure,) = [item for item in guard.about["agreement"] if item["file"] == "categories.onnx"]
    assert figure["difference"] <= figure["tolerance"] == 1e-4


BARE = """
import sys

exec(sys.argv[1])
logit, probability = onnxruntime.InferenceSession("head.onnx").run(None, {"embeddings": embeddings})
print(json.dumps({"category": category, "shares": shares.tolist(), "probability": probability.tolist()}))
"""


def test_the_cards_example_names_the_same_and_the_head_still_has_two_outputs(guard: Guard, tmp_path: Path) -> None:
    text = (guard.path / "README.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    (example,) = [block for block in blocks if "categories.onnx" in block]
    x, _, _ = drawn(17, 3)
    ran = subprocess.run(
        [sys.executable, "-I", "-c", BARE, example], capture_output=True, text=True,
        cwd=beside_a_store(guard.path, tmp_path, x), timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    shares = guard.category_probabilities(x)
    np.testing.assert_allclose(said["shares"], shares, atol=1e-5)
    np.testing.assert_allclose(said["probability"], guard.probabilities(x), atol=1e-5)
    assert said["category"] == [NAMES[k] for k in shares.argmax(1)]


def test_named_where_it_helps_where_it_is_asked_for_or_never(tmp_path: Path) -> None:
    x, labels, categories = drawn(300, 0)
    g = np.arange(300).astype(str)
    mistaken = dict(zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True))
    wrong = CategoryImages.of(x, labels, np.array([mistaken[name] for name in categories], dtype=object), g)
    few = CategoryImages.of(x[:40], labels[:40], categories[:40], g[:40])

    def made(known: CategoryImages | None, **changed):
        run = replace(toy_run(), categorised=known)
        return export_guard(tmp_path / "guard", run, validation(), toy_settings(**changed))

    left = made(wrong)
    assert left.guard.category_head is None
    assert left.guard.about["format"] == 1  # an older guardtrain reads it
    assert left.guard.predict(x[:2]).category is None
    assert "category" not in next(left.guard.predict(x[:2]).rows())
    assert "does not show that categories are named better" in left.notes[-1]
    kept = made(wrong, categories=True)
    assert kept.guard.category_head is not None
    assert "does not show" in kept.notes[-1]
    assert made(wrong, categories=False).notes == made(None).notes == ()
    assert "at least 2 have 20 unsafe training images each" in made(few).notes[-1]
    wanted = r"categories=true: .*blood \d+, fire \d+, knife \d+\. A lower category_minimum"
    with pytest.raises(DataError, match=wanted):
        made(few, categories=True)
    assert made(few, category_minimum=3).guard.category_head is not None
    with pytest.raises(DataError, match="not at hand"):
        made(None, categories=True)


def test_a_guard_that_is_calibrated_anew_names_its_categories_as_before(guard: Guard, tmp_path: Path) -> None:
    x, labels, categories = drawn(240, 3)
    others = replace(toy_validation(240), embeddings=x, labels=labels, categories=categories)
    made = calibrate_guard(tmp_path / "anew", guard, others, toy_settings(onnx=True)).guard
    np.testing.assert_array_equal(made.category_probabilities(x), guard.category_probabilities(x))
    assert made.predict(x).category_names == guard.predict(x).category_names
    assert (made.path / "categories.onnx").is_file()
    said = made.about["category_head"]
    unsafe = labels == 1
    right = (np.array(guard.predict(x).category_names)[guard.category_probabilities(x).argmax(1)] == categories)[unsafe]
    assert (said["validation"]["accuracy"]["value"], said["validation"]["accuracy"]["of"]) == (
        pytest.approx(right.mean()),
        int(unsafe.sum()),
    )
    assert said["images"] == guard.about["category_head"]["images"]
    nameless = replace(others, categories=np.full(240, None))
    made = calibrate_guard(tmp_path / "nameless", guard, nameless, toy_settings(onnx=False)).guard
    assert made.category_head is not None
    assert any("those it was made with it named rightly" in note for note in made.about["notes"])
    without = toy_settings(onnx=False, categories=False)
    assert calibrate_guard(tmp_path / "without", guard, others, without).guard.category_head is None


def test_weights_that_do_not_fit_are_refused(guard: Guard, tmp_path: Path) -> None:
    for name, names in (("fewer", NAMES[:2]), ("none", None)):
        folder = tmp_path / name
        folder.mkdir()
        for path in guard.path.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        changed = {"category_head": {**guard.about["category_head"], "names": names}}
        dropped = ("format", "files", "sha256")
        write_config(folder, {k: v for k, v in (dict(guard.about) | changed).items() if k not in dropped})
        with pytest.raises(GuardError, match="does not fit the category head"):
            Guard.load(folder)


@given(st.integers(2, 5), st.floats(0.0, 1e4), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_probabilities_are_a_distribution_however_large_the_weights(count: int, size: float, seed: int) -> None:
    g = np.random.default_rng(seed)
    weight, bias = (size * g.normal(size=shape).astype(np.float32) for shape in ((count, 3), (count,)))
    x = g.normal(size=(7, 3)).astype(np.float32)
    found = CategoryHead(tuple("abcde"[:count]), weight, bias).probabilities(x)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    best = (x @ weight.T + bias).argmax(1)
    np.testing.assert_array_equal(found[np.arange(7), best], found.max(1))
