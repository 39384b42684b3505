"""A published guard as a guard's directory: the same numbers, its origin, and the fingerprint check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guardtrain.benchmarks import importing
from guardtrain.benchmarks.importing import save_published
from guardtrain.benchmarks.kinds import Q16, Kind, LaionNsfw, MultiHeaded, SafetyChecker, Sklearn, StateDict
from guardtrain.benchmarks.published import PublishedGuard
from guardtrain.encoders.spec import external_spec
from guardtrain.errors import EncoderError, GuardError
from guardtrain.guards.guard import Guard
from tests.benchmarks.test_kinds import imported, rows, write_checker, write_multiheaded


def write_laion(path: Path, dim: int = 6) -> Path:
    g = torch.Generator().manual_seed(0)
    widths = [dim, 4, 3, 1]
    state = {"norm.mean": torch.randn(dim, generator=g) / 3, "norm.variance": torch.rand(dim, generator=g) / dim + 0.01}
    for i in range(3):
        state[f"linear_{i + 1}.weight"] = torch.randn(widths[i + 1], widths[i], generator=g)
        state[f"linear_{i + 1}.bias"] = torch.randn(widths[i + 1], generator=g)
    torch.save(state, path)
    return path


def published(tmp_path: Path, kind: Kind) -> PublishedGuard:
    """A small guard of each kind, from drawn files."""
    if isinstance(kind, Q16):
        np.save(tmp_path / "p.npy", np.random.default_rng(0).normal(size=(2, 6)))
        return imported(kind, tmp_path / "p.npy", 6)
    if isinstance(kind, LaionNsfw):
        return imported(kind, write_laion(tmp_path / "nsfw.pth"), 6)
    if isinstance(kind, SafetyChecker):
        write_checker(tmp_path, dim=6)
    else:
        write_multiheaded(tmp_path)
    return imported(kind, tmp_path, 6)


@pytest.mark.parametrize("kind", [Q16(), LaionNsfw(), MultiHeaded(), SafetyChecker()], ids=lambda k: type(k).__name__)
def test_the_directory_gives_the_originals_probabilities(tmp_path: Path, kind: Any) -> None:
    original = published(tmp_path, kind)
    onnx = isinstance(kind, SafetyChecker)  # the one head that is not guardtrain.heads' own
    made = save_published(tmp_path / "out", original, onnx=onnx)
    guard = Guard.load(tmp_path / "out")
    x = rows(200, 6, unit=kind.normalize).astype(np.float32)
    found = guard.predict(x)
    np.testing.assert_allclose(found.probabilities, original.probabilities(x), atol=1e-5)
    clear = np.abs(original.logits(x)) > 1e-3
    assert (np.array(found.decision)[clear] == np.where(original.flags(x), "unsafe", "safe")[clear]).all()
    assert np.ptp(original.logits(x)) > 0.1
    assert clear.sum() > 150
    assert made.difference <= 1e-5
    assert (guard.default_point, guard.about["validation"]["images"]) == ("published", 0)
    assert guard.about["imported"]["files"] == dict(original.files)
    assert guard.about["imported"]["classes"] == original.classes != ""
    assert "own reading of the file in float64" in made.agreement, "the authors' program was not run"
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (original.origin.paper, original.origin.url, original.spec.fingerprint, "not\ncalibrated"):
        assert text in card
    assert "trusted_heads" not in card
    with pytest.raises(EncoderError, match="name: 'other', not 'toy'"):
        guard.probabilities(x, external_spec({"name": "other", "normalized": kind.normalize}, 6))


@pytest.mark.parametrize("broken", [False, True])
def test_a_scikit_learn_model_is_compared_with_its_own_probabilities(tmp_path: Path, broken: bool) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    x = rows(60, 6, unit=True)
    model = LogisticRegression(C=10).fit(x, np.where(x[:, 0] > 0, "nsfw", "sfw"))
    skops.dump(model, tmp_path / "a.skops")
    original = imported(Sklearn(), tmp_path / "a.skops", 6)
    assert original.original is not None
    if broken:
        wrong = replace(original, original=replace(original.original, probabilities=lambda x: np.full(len(x), 0.5)))
        with pytest.raises(GuardError, match=r"differs from a by .* \(scikit-learn's own predict_proba of the model"):
            save_published(tmp_path / "out", wrong, onnx=False)
        assert not (tmp_path / "out").exists()
        return
    made = save_published(tmp_path / "out", original, onnx=False)
    assert "between the guard and scikit-learn's own predict_proba of the model in the file, on 256" in made.agreement
    np.testing.assert_allclose(made.guard.predict(x).probabilities, model.predict_proba(x)[:, 0], atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Taken as unsafe: 'nsfw'; safe: 'sfw' (the name 'sfw' says so)." in card
    assert "- Taken for granted: it reads embeddings of unit norm" in card


def test_a_guard_with_another_activation_is_loaded_without_being_trusted_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.SiLU(), torch.nn.Linear(4, 3))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    kind = StateDict(layers=[{"linear": 0}, "silu", {"linear": 2}], unsafe=[0, 2], normalize=True)
    made = save_published(tmp_path / "out", imported(kind, tmp_path / "a.pt", 6))
    x = rows(50, 6, unit=True)
    with torch.no_grad():
        wanted = module.double()(torch.from_numpy(x)).softmax(1)[:, [0, 2]].sum(1).numpy()
    np.testing.assert_allclose(Guard.load(tmp_path / "out").predict(x).probabilities, wanted, atol=1e-5)
    assert made.guard.about["head"]["_target_"] == "guardtrain.heads.network.NetworkHead"
    assert made.guard.about["agreement"][0]["file"] == "head.onnx"


def test_a_guard_is_replaced_and_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = published(tmp_path, Q16())
    out = tmp_path / "out"
    save_published(out, original, onnx=False)
    assert save_published(out, original, name="mine", onnx=False).guard.name == "mine"
    with pytest.raises(GuardError, match="is no guard"):
        save_published(tmp_path, original, onnx=False)
    monkeypatch.setattr(importing, "TOLERANCE", -1.0)  # no head meets it
    with pytest.raises(GuardError, match="differs from other by"):
        save_published(out, original, name="other", onnx=False)
    assert Guard.load(out).name == "mine"
    assert not list(tmp_path.glob(".out*"))


def test_a_forest_is_scored_and_not_saved(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.ensemble import RandomForestClassifier

    x = rows(60, 6, unit=True)
    skops.dump(RandomForestClassifier(3, random_state=0).fit(x, x[:, 0] > 0), tmp_path / "a.skops")
    with pytest.raises(GuardError, match=r"holds sklearn\.tree\._tree\.Tree, which skops does not trust"):
        imported(Sklearn(), tmp_path / "a.skops", 6)
    forest = imported(Sklearn(trusted=["sklearn.tree._tree.Tree"]), tmp_path / "a.skops", 6)
    assert (forest.flags(x) == (x[:, 0] > 0)).mean() > 0.9
    with pytest.raises(GuardError, match="no head of ours"):
        save_published(tmp_path / "out", forest, onnx=False)
    assert not (tmp_path / "out").exists()
