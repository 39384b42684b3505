"""What a guard needs of a run that is finished: head, training in words and numbers, training images, test metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.engine import Run
from guardtrain.curves.pairless import WITHOUT_PAIRS
from guardtrain.curves.results import METRICS
from guardtrain.embeddings import Embeddings
from guardtrain.embeddings.sketches import sketched
from guardtrain.guards.category_fit import CategoryImages
from guardtrain.guards.neighbours import Neighbours
from guardtrain.guards.parts import TrainedRun
from guardtrain.heads.bank import HeadBank
from guardtrain.training.pools import Pools

if TYPE_CHECKING:
    import pandas as pd

_TEST_COLUMNS = ("test", "n_test", "n_unsafe", "n_pairs", *METRICS)


def trained_run(
    pools: Pools,
    run: Run,
    bank: HeadBank,
    definition: Mapping[str, Any],
    *,
    label: str,
    chosen: Mapping[str, float],
    recipe: Mapping[str, Any],
    results: pd.DataFrame,
    data: Mapping[str, Mapping[str, Any]],
    neighbours: bool,
    notes: tuple[str, ...] = (),
) -> TrainedRun:
    """A run as `export_guard` takes it.

    Args:
        pools: what it drew from.
        run: its mixture and key.
        bank: its head, a bank of one.
        definition: of the head, as in the config.
        label: what the results table calls the head; one that needs pairs and has none is called what it is.
        chosen: hyper-parameters as used.
        recipe: how it was trained, as plain data.
        results: the results table; other runs' rows are left out.
        data: origin and licence of each source, as plain data.
        neighbours: whether the training embeddings are wanted.
        notes: for the card.
    """
    mixture, point = run.mixture, run.point
    if label in WITHOUT_PAIRS and not len(pools.pair_rows(mixture)):
        label = f"{WITHOUT_PAIRS[label]} ({label} without pairs)"
    training = {
        "data": pools.name,
        "run": run.key,
        "head": label,
        "mixture": {
            "budget": point.budget,
            "ratio": point.ratio,
            "arm": point.arm,
            "control": point.control,
            "seed": point.seed,
        },
        "images": {"real": mixture.n_real, "of_pairs": mixture.n_pair_images},
        "chosen": {name: float(value) for name, value in chosen.items()},
        "recipe": dict(recipe),
    }
    mine = results[(results["run"] == run.key) & (results["slice_kind"] == "all")]
    tests = [{name: _plain(row[name]) for name in _TEST_COLUMNS} for row in mine.to_dict("records")]
    used = [pools.real.records.categories[mixture.real]]
    if pools.pairs is not None:
        used.append(pools.pairs.records.categories[mixture.pairs])
    categories = sorted({str(name) for name in np.concatenate(used) if name})
    parts = _training_images(pools, run)
    near = _neighbours(parts) if neighbours else None
    categorised = CategoryImages.joined(CategoryImages.of_part(part) for part in parts)
    return TrainedRun(
        bank,
        pools.spec,
        definition,
        training,
        tests,
        categories,
        data,
        near,
        notes,
        categorised=categorised,
        known=sketched([part.matrix for part in parts]),
    )


def _training_images(pools: Pools, run: Run) -> list[Embeddings]:
    """The run's own images, real ones first."""
    parts = [pools.real.take(run.mixture.real)]
    if pools.pairs is not None and len(run.mixture.pairs):
        parts.append(pools.pairs.take(run.mixture.pairs))
    return parts


def _neighbours(parts: list[Embeddings]) -> Neighbours:
    return Neighbours.of(
        np.concatenate([np.asarray(part.matrix[:], dtype=np.float32) for part in parts]),
        np.concatenate([part.records.labels for part in parts]),
        np.concatenate([part.records.ids for part in parts]).tolist(),
        np.concatenate([part.records.pair_ids for part in parts]).tolist(),
    )


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value
