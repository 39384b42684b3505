"""`guardtrain calibrate`: an imported guard gets calibration and thresholds; its head and origin stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from guardtrain.benchmarks.importing import save_published
from guardtrain.benchmarks.kinds import Q16
from guardtrain.guards.guard import Guard
from tests.benchmarks.test_kinds import imported

ENCODER = "encoder: {name: toy, normalized: true}"
NAMES = "features: x, label: y, labels: {fine: 0, bad: 1}"


def test_an_imported_guard_is_calibrated_on_labelled_images(run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("prompts.npy", rng.normal(size=(2, 6)))
    guard = save_published(tmp_path / "q16", imported(Q16(), tmp_path / "prompts.npy", 6), onnx=False).guard
    x = rng.normal(size=(400, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    logits = guard.logits(x)
    y = rng.random(400) < 1 / (1 + np.exp(-0.05 * logits + 1))  # far less sure than the head, and shifted
    np.savez("a.npz", x=x, y=np.where(y, "bad", "fine"))
    data = f"data={{mine: {{path: a.npz, {NAMES}, {ENCODER}}}}}"

    text = run("calibrate", "guard=q16", data, "onnx=false", "calibration.replicates=50", "prior=0.02")
    assert "calibration and thresholds on 400 images" in text
    assert f"mine: 400 labels, unsafe: 'bad' ({int(y.sum())}), safe: 'fine' ({int((~y).sum())})\n" in text
    made = Guard.load("q16-calibrated")
    assert (logits == made.logits(x)).all()
    assert made.calibration.kind != "identity"
    assert made.prior == 0.02
    at_half = Guard.load("q16-calibrated", prior=float(y.mean())).probabilities(x)
    assert abs(at_half.mean() - y.mean()) < 0.02
    odds = (0.02 / 0.98) / (y.mean() / (1 - y.mean()))
    np.testing.assert_allclose(made.probabilities(x), at_half * odds / (1 - at_half + at_half * odds), rtol=1e-6)
    before, after = made.calibration.before.ece.value, made.calibration.after.ece.value
    assert after < before / 2
    assert list(made.points) == ["strict", "balanced", "permissive"]
    flagged = made.points["balanced"].decide(logits)[~y].mean()
    assert flagged <= 0.05
    about = made.about
    assert about["imported"] == guard.about["imported"]
    assert about["training"] == guard.about["training"]
    assert about["calibrated_from"] == {"name": "q16", "sha256": guard.about["sha256"]}
    assert about["validation"]["origin"] == "the data set mine"
    old = (logits >= 0)[y].mean()
    card = (tmp_path / "q16-calibrated" / "README.md").read_text()
    for words in ("the work of others and unchanged", f" {old:.3f}".replace(" 0.", " ."), "the data set mine"):
        assert words in card

    other = data.replace("name: toy", "name: other")
    assert "guard q16 reads those of toy" in run("calibrate", "guard=q16", other, code=2)
    assert "guard is calibrated on one data set" in run(
        "calibrate", "guard=q16", f"data=[{data[5:]},{data[5:].replace('mine', 'more')}]", code=2
    )
    assert "validation is what `guardtrain export` asks" in run(
        "calibrate", "guard=q16", data, "validation=val", code=2
    )
    np.savez("safe.npz", x=x, y=np.full(400, "fine"))
    safe = data.replace("a.npz", "safe.npz")
    assert "Give labelled images of both kinds" in run("calibrate", "guard=q16", safe, code=2)
