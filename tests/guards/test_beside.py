"""A guard is measured on the pool that did not calibrate it, and says where its promises do not hold there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guardtrain.embeddings import Embeddings
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import DataError
from guardtrain.guards.base_rates import shift
from guardtrain.guards.beside import Beside, PointRates
from guardtrain.guards.calibration import Identity
from guardtrain.guards.calibration_inputs import scored
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.reliability import reliability
from guardtrain.guards.settings import CategorySettings, GuardSettings, ReviewSettings
from guardtrain.guards.summary import summary_text
from guardtrain.guards.validation import Validation, find_others, find_validation
from guardtrain.mixtures import Mixture
from guardtrain.records import Records
from guardtrain.training.pools import Pools
from tests.guards.toys import toy_run, toy_settings, toy_validation


def _shifted(others: Validation, by: float) -> Validation:
    """The same images, all of them looking more unsafe."""
    moved = others.embeddings.copy()
    moved[:, 0] += by
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return replace(others, embeddings=moved, origin="images that look unsafe")


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Guard]:
    """One guard measured beside on images like those that calibrated it, and on shifted ones."""
    folder = tmp_path_factory.mktemp("beside")
    wanted = toy_settings(review=ReviewSettings(enabled=True), category_points=CategorySettings(enabled=True))
    like, far = toy_validation(300, seed=7), _shifted(toy_validation(300, seed=7), 0.3)
    return {
        name: export_guard(folder / name, toy_run(), toy_validation(), wanted, others=[others]).guard
        for name, others in (("like", like), ("far", far))
    }


@pytest.mark.parametrize("name", ["like", "far"])
def test_rates_are_those_of_its_decisions(guards: dict[str, Guard], name: str) -> None:
    guard = guards[name]
    (said,) = guard.about["validation"]["beside"]
    others = toy_validation(300, seed=7) if name == "like" else _shifted(toy_validation(300, seed=7), 0.3)
    logits = guard.logits(others.embeddings)
    one = Beside.from_dict(said)
    assert one.to_dict() == json.loads(json.dumps(said))
    assert (one.images, one.unsafe, one.origin) == (300, int(others.labels.sum()), others.origin)
    assert list(one.points) == list(guard.points)
    for point, rates in one.points.items():
        decided = guard.points[point].decide(logits)
        assert rates.false_alarms.value == pytest.approx((decided[others.labels == 0] == 1).mean())
        assert rates.misses.value == pytest.approx((decided[others.labels == 1] == 0).mean())
        assert rates.false_alarms.of == (others.labels == 0).sum()
    for category, rates in one.category_points.items():
        own = (others.labels == 0) & np.isin(others.categories, [category, None])
        flagged = logits[own] >= guard.category_points[category].threshold
        assert rates.false_alarms.value == pytest.approx(flagged.mean())


def test_it_is_loud_where_the_promise_does_not_hold_and_only_there(guards: dict[str, Guard]) -> None:
    quiet, loud = (" ".join(summary_text(guards[name]).split()) for name in ("like", "far"))
    assert "beside, on 300 images" in quiet
    assert "do not hold" not in quiet
    far = Beside.from_dict(guards["far"].about["validation"]["beside"][0])
    strict = guards["far"].points["strict"]
    told = f"'strict' calls {far.points['strict'].false_alarms} of safe images unsafe ({strict.fpr} on validation)"
    assert "Its thresholds do not hold on 300 images that look unsafe" in loud
    assert told in loud
    assert f"calibration error is {far.reliability.ece} there" in loud
    assert "of unsafe images safe" not in loud  # it misses fewer of them: no reason to warn
    for name, text in (("like", quiet), ("far", loud)):
        card = (guards[name].path / "README.md").read_text()
        assert "### Beside: on other images" in card
        assert ("do not hold" in card) == ("do not hold" in text)


def test_three_ways(guards: dict[str, Guard]) -> None:
    point = guards["like"].points["review"]
    images = scored(np.array([point.lower - 1, point.lower, point.upper, point.upper + 1]), np.array([1, 1, 0, 0]))
    rates = PointRates.of(point, images)
    assert (rates.misses.count, rates.false_alarms.count) == (1, 2)
    assert PointRates.promised(point) == PointRates(point.false_alarms, point.misses)


def test_another_share_of_unsafe_images_is_no_miscalibration() -> None:
    """Scores whose probabilities are right at one base rate are right, moved, at another."""
    g = np.random.default_rng(0)
    labels = (g.random(6000) < 0.5).astype(int)
    logits = g.normal(np.where(labels == 1, 1.0, -1.0), np.sqrt(2.0))  # log-odds at a share of a half, by Bayes' rule
    kept = (labels == 0) | (g.random(6000) < 0.1)
    share = labels[kept].mean()
    itself, moved = Identity(), Identity().moved(shift(0.5, share))
    assert reliability(moved.probabilities(logits[kept]), labels[kept], replicates=50).within_noise
    assert not reliability(itself.probabilities(logits[kept]), labels[kept], replicates=50).within_noise


def test_a_guard_without_other_images_says_nothing_of_them(tmp_path: Path) -> None:
    made = export_guard(tmp_path / "guard", toy_run(), toy_validation(), toy_settings()).guard
    assert made.about["validation"]["beside"] == []
    assert "beside" not in summary_text(made)
    about = dict(made.about, validation={k: v for k, v in made.about["validation"].items() if k != "beside"})
    assert summary_text(replace(made, about=about)) == summary_text(made)  # of an older guardtrain


def _part(name: str, n: int, split: str | None = None) -> Embeddings:
    splits = [split if i < n // 2 else None for i in range(n)]
    groups = [f"{name}{i // 2}" for i in range(n)]
    labels = [i % 2 for i in range(n)]
    records = Records.from_columns(id=[f"{name}-{i}" for i in range(n)], label=labels, group=groups, split=splits)
    return Embeddings(records, np.arange(n, dtype=np.float32)[:, None], external_spec({"name": "toy"}, 1))


def test_the_other_pool_is_what_the_run_did_not_see_of_it() -> None:
    real, pairs = _part("r", 8), _part("p", 8)
    marked = {"pairs": _part("v", 8, "val")}
    pools = Pools("toy", real, pairs, {"t": _part("t", 4)}, marked)
    mixture = Mixture("replace", "paired", 4, 0.5, 0, np.array([0, 1]), np.array([6]))
    own, (other,) = find_validation(GuardSettings(), pools, mixture), find_others(GuardSettings(), pools, mixture)
    assert own.embeddings[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert other.embeddings[:, 0].tolist() == [0, 1, 2, 3, 4, 5]  # 7 is of 6's pair
    assert "of the pair pool" in other.origin
    (by_split,) = find_others(GuardSettings(validation="val"), pools, mixture)
    assert by_split.origin == "records of the pair pool with split: val"
    with pytest.raises(DataError, match=r"No record of data\.real has split 'val'"):
        find_validation(GuardSettings(validation="val"), pools, mixture)
    on_test = GuardSettings(validation="t")
    assert [one.origin[:23] for one in find_others(on_test, pools, mixture)] == [
        "images of the real pool",
        "images of the pair pool",
    ]
    whole = Mixture("replace", "paired", 8, 1.0, 0, np.array([], dtype=np.int64), np.arange(8))
    assert find_others(GuardSettings(), pools, whole) == []
    assert find_others(GuardSettings(), replace(pools, pairs=None, validation={}), mixture) == []
