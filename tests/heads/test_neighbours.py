from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from guardtrain.errors import ConfigError
from guardtrain.heads import NeighboursHead, join_states
from tests.heads.toys import logits, toy_data


@pytest.mark.parametrize(("strength", "k"), [(0.01, 1), (0.25, 5), (1.0, 20), (10.0, 50)])
def test_votes_are_scikit_learns(strength: float, k: int) -> None:
    data, x = toy_data(50, 8), toy_data(60, 8, seed=1).x
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    share = reference.fit(data.x, data.y).predict_proba(x)[:, 1]
    expected = np.log((k * share + 0.5) / (k * (1 - share) + 0.5))
    bank = NeighboursHead().solve(data, [strength])[0]
    np.testing.assert_allclose(logits(bank, x), expected, rtol=1e-3, atol=1e-3)


def test_class_weights_count_in_the_votes() -> None:
    data = toy_data(50, 8, weighted=True)
    assert (data.y == 0).sum() > (data.y == 1).sum()
    bank = NeighboursHead(neighbours=50, temperature=1e6).solve(data, [1.0])[0]  # all vote, all equally
    np.testing.assert_allclose(logits(bank, data.x), 0, atol=1e-4)


def test_caches_of_different_sizes_stand_in_one_bank() -> None:
    head = NeighboursHead(neighbours=3)
    sets = [toy_data(n, 8, seed=n) for n in (40, 9, 20)]
    alone = [head.solve(data, [1.0])[0] for data in sets]
    bank = head.bank(3, 8)
    bank.load_state_dict(join_states([b.state_dict() for b in alone]))
    x = torch.from_numpy(toy_data(30, 8, seed=7).x)
    torch.testing.assert_close(bank(x), torch.cat([b(x) for b in alone]))
    again = head.bank(1, 8)
    again.load_state_dict(bank.head_state(1))
    assert again.keys.shape == alone[1].keys.shape  # no padding is kept
    torch.testing.assert_close(again(x), alone[1](x))


@pytest.mark.parametrize("settings", [{"neighbours": 0}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match="head"):
        NeighboursHead(**settings)
