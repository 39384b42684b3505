from __future__ import annotations

import pytest
import torch
from torchmetrics import MetricCollection

from guardtrain.errors import DataError
from guardtrain.metrics import METRICS, guard_metrics, guard_metrics_collection


def _images(seed: int, n: int = 60) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(n, generator=generator) < 0.4).long()
    # Ties, also at the threshold and at 0 and 1.
    preds = torch.randint(0, 21, (n,), generator=generator) / 20
    pair_index = torch.full((n,), -1)
    safe, unsafe = (target == 0).nonzero()[:12, 0], (target == 1).nonzero()[:12, 0]
    pair_index[safe] = pair_index[unsafe] = torch.arange(12)
    return {"preds": preds, "target": target, "pair_index": pair_index}


@pytest.mark.parametrize("seed", range(5))
def test_equals_guard_metrics(seed: int) -> None:
    images = _images(seed)
    collection = guard_metrics_collection(threshold=0.4, fpr=0.1)
    assert isinstance(collection, MetricCollection)
    for start in range(0, 60, 16):
        collection.update(**{name: values[start : start + 16] for name, values in images.items()})
    values = collection.compute()
    assert set(values) == set(METRICS)
    pairs = tuple((images["target"] == y).nonzero()[:12, 0] for y in (0, 1))
    expected = guard_metrics(images["preds"][None], images["target"], pairs, threshold=0.4, fpr=0.1)  # type: ignore[arg-type]
    for name in METRICS:
        assert float(values[name]) == pytest.approx(expected[name].item(), abs=1e-5), name


def test_without_pairs_and_with_a_prefix() -> None:
    images = _images(0)
    collection = guard_metrics_collection(pairs=False, prefix="val/")
    collection.update(preds=images["preds"], target=images["target"])
    assert set(collection.compute()) == {f"val/{name}" for name in METRICS[:7]}


def test_the_pair_metrics_share_their_states() -> None:
    collection = guard_metrics_collection()
    collection.update(**_images(0))
    collection.update(**_images(1))
    groups = [set(group) for group in collection.compute_groups.values()]
    assert {"pair_both_right", "pair_ranking", "pair_margin"} in groups


def test_logits_are_refused() -> None:
    images = _images(0)
    for pairs in (True, False):
        collection = guard_metrics_collection(pairs=pairs)
        with pytest.raises(DataError, match="not logits"):
            collection.update(**{**images, "preds": images["preds"] * 8 - 4})
