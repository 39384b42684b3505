from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guardtrain.heads import GDAHead, HeadData, PairDirectionHead
from guardtrain.heads.calibration import platt
from guardtrain.heads.gda import WithinClass
from tests.heads.toys import logits, toy_data


def _direction(data: HeadData, pairs: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """The formula with full matrices."""
    n, dim = data.n_real, data.x.shape[1]
    rows = WithinClass.of(data.x[:n], data.y[:n]).rows
    s = rows.T @ rows / (n - 1)
    shrunk = ((n - 1) * s + strength * np.trace(s) * np.eye(dim)) / (n - 1 + strength * dim)
    unsafe, safe = data.x[pairs[:, 0]].astype(float), data.x[pairs[:, 1]].astype(float)
    weight = np.linalg.solve(shrunk, (unsafe - safe).mean(0))
    return weight, -float(weight @ ((unsafe + safe) / 2).mean(0))


@pytest.mark.parametrize("dim", [5, 40])
@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_it_is_the_formula(dim: int, strength: float) -> None:
    data = toy_data(30, dim, pairs=6)
    weight, bias = _direction(data, data.pairs, strength)
    bank = PairDirectionHead(calibrate=False).solve(data, [strength])[0]
    np.testing.assert_allclose(logits(bank, data.x), data.x @ weight + bias, rtol=1e-3, atol=1e-3)


def test_its_scale_comes_from_pairs_left_out() -> None:
    data = toy_data(30, 10, pairs=6)
    scores, labels = [], []
    for j in range(6):
        weight, bias = _direction(data, np.delete(data.pairs, j, axis=0), 1.0)
        scores += [data.x[half] @ weight + bias for half in data.pairs[j]]
        labels += [1, 0]
    slope, _ = platt(np.array(scores), np.array(labels), intercept=False)
    weight, bias = _direction(data, data.pairs, 1.0)
    bank = PairDirectionHead().solve(data, [1.0])[0]
    np.testing.assert_allclose(logits(bank, data.x), slope * (data.x @ weight + bias), rtol=1e-3, atol=1e-3)


def test_a_single_pair_claims_two_thirds() -> None:
    data = toy_data(30, 10, pairs=1)
    scores = logits(PairDirectionHead().solve(data, [1.0])[0], data.x[data.pairs[0]])
    np.testing.assert_allclose(scores, [np.log(2), -np.log(2)], rtol=1e-3)


def test_without_pairs_it_is_gda_and_without_real_images_the_pairs_say_what_varies() -> None:
    data = toy_data(30, 10)
    ours, theirs = (head.solve(data, [1.0])[0] for head in (PairDirectionHead(), GDAHead()))
    assert np.array_equal(logits(ours, data.x), logits(theirs, data.x))
    paired = toy_data(0, 10, pairs=8)
    bank = PairDirectionHead(calibrate=False).solve(paired, [1.0])[0]
    all_real = HeadData.of(paired.x, paired.y, pairs=paired.pairs)
    weight, bias = _direction(all_real, paired.pairs, 1.0)
    np.testing.assert_allclose(logits(bank, paired.x), paired.x @ weight + bias, rtol=1e-3, atol=1e-3)


def test_the_middle_of_the_pairs_is_the_threshold() -> None:
    data = toy_data(30, 10, pairs=5)
    middle = data.x[data.pairs].mean((0, 1))
    assert logits(PairDirectionHead().solve(data, [1.0])[0], middle[None])[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.data
def test_five_pairs_are_enough_for_face_masks(data_dir: Path) -> None:
    """The figure this head exists for: .98 of held-out pairs right with 5 pairs, where plain mixing gets .82."""
    real, pairs = np.load(data_dir / "masks" / "real.npz"), np.load(data_dir / "masks" / "pairs.npz")
    safe, unsafe = (pairs[name].astype(np.float32) for name in ("without_mask", "with_mask"))
    right: dict[str, list[float]] = {"pairs": [], "plain": []}
    for seed in range(3):
        g = np.random.default_rng(seed)
        chosen = np.concatenate([g.permutation(np.flatnonzero(real["with_mask"] == c))[:200] for c in (0, 1)])
        order = g.permutation(200)
        train, test = order[:5], order[40:]
        x = np.concatenate([real["features"][chosen], unsafe[train], safe[train]])
        y = np.concatenate([real["with_mask"][chosen], np.ones(5), np.zeros(5)])
        data = HeadData.of(x, y, pairs=400 + np.stack([np.arange(5), 5 + np.arange(5)], 1), n_real=400)
        for name, head in (("pairs", PairDirectionHead()), ("plain", GDAHead())):
            bank = head.solve(data, [1.0])[0]
            right[name].append(float(((logits(bank, unsafe[test]) > 0) & (logits(bank, safe[test]) < 0)).mean()))
    assert np.mean(right["pairs"]) >= 0.975
    assert np.mean(right["plain"]) <= 0.9
