"""Probabilities for another share of unsafe images, against Bayes' rule on class conditionals that are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from guardtrain.errors import ConfigError, DataError, GuardError
from guardtrain.guards.base_rates import AtBaseRate, base_rate, shift
from guardtrain.guards.calibration import CALIBRATORS, Beta, Calibrator, Identity, Isotonic, Platt, fit_calibrator
from guardtrain.guards.conformal import three_way
from guardtrain.guards.described import DescribedGuard
from guardtrain.guards.directory import CONFIG, config_digest
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.settings import CalibrationSettings, GuardSettings, PointSettings, ReviewSettings
from guardtrain.guards.summary import summary_text
from guardtrain.guards.thresholds import operating_point
from guardtrain.guards.thresholds_rules import Rule
from tests.guards.toys import toy_guard, toy_images, toy_run, toy_settings, toy_validation

RARE = 0.02


def _drawn(n: int, share: float, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Logits of either class are normal around -2 and 2 with variance 4: the log-odds at a share of a half."""
    labels = (g.random(n) < share).astype(int)
    return g.normal(4.0 * labels - 2.0, 2.0), labels


def _posterior(logits: np.ndarray, share: float) -> np.ndarray:
    """Bayes' rule on the two densities."""
    unsafe, safe = share * norm.pdf(logits, 2, 2), (1 - share) * norm.pdf(logits, -2, 2)
    return unsafe / (unsafe + safe)


@pytest.mark.parametrize("kind", list(CALIBRATORS))
def test_what_was_calibrated_at_one_half_is_right_at_one_in_fifty(kind: str) -> None:
    g = np.random.default_rng(0)
    stretch = 1.0 if kind == "identity" else 3.0  # a head that is three times as sure as it should be
    logits, labels = _drawn(8_000, 0.5, g)
    calibrator = fit_calibrator(kind, stretch * logits, labels)
    used, truth = _drawn(40_000, RARE, g)
    before = calibrator.probabilities(stretch * used)
    after = calibrator.moved(shift(0.5, RARE)).probabilities(stretch * used)
    assert before.mean() > 5 * truth.mean()
    assert after.mean() == pytest.approx(RARE, abs=0.003)
    expected = _posterior(used, RARE)
    assert np.abs(after - expected).mean() < 0.003  # the fit's own error, on 8,000 images
    assert (np.argsort(after, kind="stable") == np.argsort(before, kind="stable")).mean() > 0.999


def test_a_moved_isotonic_map_is_the_one_that_weighted_images_lead_to() -> None:
    g = np.random.default_rng(1)
    logits, labels = _drawn(300, 0.5, g)
    made = fit_calibrator("isotonic", logits, labels)
    share = labels.mean()
    moved = made.moved(shift(share, RARE))
    weights = np.where(labels == 1, RARE / share, (1 - RARE) / (1 - share))
    ours = made.probabilities(logits)
    inside = (ours > ours.min()) & (ours < ours.max())  # the ends are kept from 0 and 1, by how many images there are
    theirs = IsotonicRegression().fit(logits, labels, sample_weight=weights).predict(logits)
    np.testing.assert_allclose(moved.probabilities(logits)[inside], theirs[inside], atol=1e-9)


@st.composite
def calibrators(draw: st.DrawFn) -> Calibrator:
    slope = draw(st.floats(0.01, 5))
    steps = tuple(sorted(draw(st.lists(st.floats(0, 1), min_size=1, max_size=6))))
    return draw(
        st.sampled_from(
            [
                Identity(),
                CALIBRATORS["temperature"](slope),  # type: ignore[call-arg]
                Platt(slope, draw(st.floats(-5, 5))),
                Beta(slope, draw(st.floats(0, 5)), draw(st.floats(-5, 5))),
                Isotonic(tuple(range(len(steps))), steps),
            ]
        )
    )


@settings(max_examples=40, deadline=None)
@given(calibrators(), st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_moving_adds_to_log_odds_and_has_no_memory(one: Calibrator, a: float, b: float, c: float) -> None:
    x = np.arange(-3.0, 7.0)  # corners of the isotonic map are among them, and places beyond
    p = one.probabilities(x)
    moved = one.moved(shift(a, b))
    odds = (b / (1 - b)) / (a / (1 - a))
    np.testing.assert_allclose(moved.probabilities(x), p * odds / (1 - p + p * odds), rtol=1e-6, atol=1e-12)
    there, directly = moved.moved(shift(b, c)), one.moved(shift(a, c))
    np.testing.assert_allclose(there.probabilities(x), directly.probabilities(x), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(moved.moved(shift(b, a)).probabilities(x), p, rtol=1e-6, atol=1e-12)


def test_a_guard_for_another_share_has_its_probabilities_and_the_same_decisions(tmp_path: Path) -> None:
    review = ReviewSettings(enabled=True)
    plain = toy_guard(tmp_path / "plain", review=review, onnx=True).guard
    rare = toy_guard(tmp_path / "rare", review=review, onnx=True, prior=RARE).guard
    share = toy_validation().labels.mean()
    assert plain.prior == plain.about["prior"] == pytest.approx(share) and rare.prior == RARE
    x, _ = toy_images(50, seed=9)
    p, odds = plain.probabilities(x), (RARE / (1 - RARE)) / (share / (1 - share))
    expected = p * odds / (1 - p + p * odds)
    np.testing.assert_allclose(rare.probabilities(x), expected, rtol=1e-9)
    assert rare.points == plain.points
    assert rare.calibration.kind == plain.calibration.kind
    # told when it is loaded, it is the same; and back again
    told, back = Guard.load(plain.path, prior=RARE), Guard.load(rare.path, prior=float(share))
    np.testing.assert_allclose(told.probabilities(x), expected, rtol=1e-9)
    np.testing.assert_allclose(back.probabilities(x), p, rtol=1e-9)
    assert (told.prior, told.points) == (RARE, plain.points)
    for point in plain.points:
        assert told.predict(x, point=point).decision == rare.predict(x, point=point).decision
        assert plain.predict(x, point=point).decision == rare.predict(x, point=point).decision
    import onnxruntime

    session = onnxruntime.InferenceSession(str(rare.path / "head.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"embeddings": x})[1], expected, atol=1e-5)

    card, text = (rare.path / "README.md").read_text(), " ".join(summary_text(rare).split())
    assert "among images of which 2 % are" in card
    assert f"moved by {shift(share, RARE):+.3f} from {100 * share:.0f} %" in card
    assert f"probabilities hold where 2 % are unsafe; they were moved there from the {100 * share:.0f} % here" in text
    assert f"probabilities hold where {100 * share:.0f} % are unsafe, as here" in " ".join(summary_text(plain).split())
    for name, point in rare.points.items():
        (row,) = (line for line in card.splitlines() if line.startswith(f"| {name} |") and line.count("|") == 10)
        for rate in (0.01, RARE, 0.05, 0.5):
            at = AtBaseRate.of(point, rate)
            for value in (at.precision[0], at.flagged[0], *at.precision[1:]):
                assert f"{value:.3f}".removeprefix("0") in row


def test_a_guard_of_a_version_that_said_no_prior_is_for_the_share_of_its_validation(tmp_path: Path) -> None:
    made = toy_guard(tmp_path / "guard").guard
    file = made.path / CONFIG
    old = {key: value for key, value in json.loads(file.read_text()).items() if key != "prior"}
    file.write_text(json.dumps(old | {"sha256": config_digest(old)}))
    assert Guard.load(made.path).prior == made.prior == pytest.approx(toy_validation().labels.mean())
    assert DescribedGuard.read(made.path).at(RARE).prior == RARE
    wrong = old | {"prior": 2}
    file.write_text(json.dumps(wrong | {"sha256": config_digest(wrong)}))
    with pytest.raises(GuardError, match="the config cannot be used: prior is the share of unsafe images"):
        Guard.load(made.path)


def test_without_calibration_no_share_is_known(tmp_path: Path) -> None:
    made = toy_guard(tmp_path / "guard").guard
    described = DescribedGuard.read(made.path)
    about = {key: value for key, value in made.about.items() if key != "prior"}
    imported = replace(described, about=about | {"validation": {"images": 0, "unsafe": 0}})
    assert imported.prior is None and imported.at(None) is imported
    with pytest.raises(GuardError, match=r"nothing calibrated it.*guardtrain calibrate guard=… data=… prior=0\.02"):
        imported.at(RARE)
    assert base_rate({}) is None


def test_too_few_groups_to_calibrate_on_claim_no_share(tmp_path: Path) -> None:
    few = toy_validation(12)
    one = replace(few, groups=np.where(few.labels == 1, "a", few.groups))
    made = export_guard(tmp_path / "few", toy_run(), one, toy_settings(), others=[toy_validation(40, seed=5)]).guard
    assert made.about["calibration"]["folds"] == 0
    assert made.about["prior"] is made.prior is DescribedGuard.read(made.path).prior is None
    x, _ = toy_images(20, seed=9)
    np.testing.assert_allclose(made.probabilities(x), Identity().probabilities(made.logits(x)))
    with pytest.raises(GuardError, match=r"nothing calibrated it.*prior=0\.02 cannot move them"):
        Guard.load(made.path, prior=RARE)
    card, text = (made.path / "README.md").read_text(), " ".join(summary_text(made).split())
    assert "a score between 0 and 1" in card and "**Probabilities are scores**" in card
    for said in (card, text):
        assert "robabilities hold where" not in said and "calibrated and with" not in said
    assert "its probabilities are scores, which hold for no known share of images" in text
    # one of an earlier version, which wrote validation's share all the same, is read and claims none either
    old = {**json.loads((made.path / CONFIG).read_text()), "prior": float(one.labels.mean())}
    del old["sha256"]
    (made.path / CONFIG).write_text(json.dumps(old | {"sha256": config_digest(old)}))
    assert Guard.load(made.path).prior is None
    np.testing.assert_array_equal(Guard.load(made.path).probabilities(x), made.probabilities(x))
    with pytest.raises(DataError, match=r"too few independent images to calibrate on.*prior=0\.02"):
        export_guard(tmp_path / "few", toy_run(), one, toy_settings(prior=RARE))


@pytest.mark.parametrize("prior", [0.0, 1.0, 2, -0.1, float("nan")])
def test_what_is_no_share_is_refused(prior: float) -> None:
    with pytest.raises(ConfigError, match=r"prior is the share of unsafe images.*such as prior=0\.02"):
        GuardSettings(prior=prior).rules()


def test_precision_and_cost_reckon_with_the_prior_and_rates_do_not() -> None:
    points = {
        "a": {"kind": "precision", "target": 0.9},
        "b": {"kind": "cost", "target": 5, "prevalence": 0.3},
        "c": {"target": 0.05},
    }
    rules = GuardSettings(prior=RARE, points=points).rules()
    assert [rules[name].prevalence for name in "abc"] == [RARE, 0.3, None]
    assert GuardSettings(points=points).rules()["a"].prevalence is None
    assert PointSettings("cost", 5).rule(RARE) == Rule("cost", 5, "point", prevalence=RARE)


def test_precision_elsewhere_follows_bayes_and_is_validations_at_its_own_share() -> None:
    labels = np.repeat([0, 1], [200, 100])
    scores = np.concatenate([np.linspace(0, 1, 200), np.linspace(0.6, 2, 100)])
    for point in (operating_point(scores, labels, Rule("fpr", 0.05, "point")), three_way(scores, labels)):
        called = point.decide(scores) == 1
        here = AtBaseRate.of(point, 1 / 3)
        assert here.precision[0] == pytest.approx(labels[called].mean())
        assert here.flagged[0] == pytest.approx(called.mean())
        at = AtBaseRate.of(point, 0.01)
        for (value, low, high), other in ((at.precision, here.precision), (at.flagged, here.flagged)):
            assert low < value < high and value < other[0]
    with pytest.raises(ConfigError, match="share is the share of unsafe images"):
        AtBaseRate.of(point, 0.0)
    none = operating_point(np.zeros(100), np.repeat([0, 1], 50), Rule("fpr", 0.05))  # nothing is called unsafe
    value, low, high = AtBaseRate.of(none, RARE).precision
    assert np.isnan(value) and (low, high) == (0.0, 1.0)


def test_intervals_of_precision_and_flagged_share_cover_at_another_share() -> None:
    g = np.random.default_rng(3)
    labels = np.repeat([0, 1], [200, 100])
    covered = []
    for _ in range(200):
        point = operating_point(g.normal(4.0 * labels - 2.0, 2.0), labels, Rule("fpr", 0.05))
        fpr, recall = norm.sf(point.threshold, -2, 2), norm.sf(point.threshold, 2, 2)
        flagged = RARE * recall + (1 - RARE) * fpr
        at = AtBaseRate.of(point, RARE)
        covered.append(
            at.precision[1] <= RARE * recall / flagged <= at.precision[2] and at.flagged[1] <= flagged <= at.flagged[2]
        )
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_calibration_of_a_moved_guard_is_told_as_it_was_chosen(tmp_path: Path) -> None:
    wanted = toy_settings(prior=RARE, calibration=CalibrationSettings(kinds=["temperature"], replicates=20))
    made = export_guard(tmp_path / "guard", toy_run(), toy_validation(), wanted).guard
    assert made.calibrator.kind == "platt" and made.calibration.kind == "temperature"
    assert made.calibration.line.startswith("temperature (cross-fitted")
    assert "calibration: temperature" in summary_text(made)
