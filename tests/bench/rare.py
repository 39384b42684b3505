"""Scenes of which 2 % are unsafe: how much of what pairs gain there is that they bring unsafe images at all.

Run: python -m tests.bench.rare     (the first time it embeds 16,384 images; then a minute)
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from guardtrain.api.recipe import build_recipe, recipe_settings
from guardtrain.commands.data import load_pools
from guardtrain.config import CurveConfig, conf_dir, register_schemas
from guardtrain.config_checks import typed
from guardtrain.curves.bootstrap import bootstrap_points
from guardtrain.curves.decomposition import decomposition_text, decompositions
from guardtrain.curves.engine import run_curve
from guardtrain.curves.folder import RESULTS_FILE, SCORES_FOLDER
from guardtrain.curves.results import ResultsTable
from guardtrain.records import UNSAFE
from guardtrain.training.pools import Pools

SHARE = 0.02
OVERRIDES = ["head=linear", "data.real.n=16384", "grid.budgets=[128,512]", "grid.ratios=[0,0.25]", "grid.seeds=10"]


def with_few_unsafe(pools: Pools, share: float, seed: int = 0) -> Pools:
    """Pools whose real images are all the safe ones, and unsafe ones drawn at random that make up `share`."""
    labels = pools.real.records.labels
    safe, unsafe = np.flatnonzero(labels != UNSAFE), np.flatnonzero(labels == UNSAFE)
    few = np.random.default_rng(seed).choice(unsafe, round(len(safe) * share / (1 - share)), replace=False)
    return replace(pools, real=pools.real.take(np.sort(np.concatenate([safe, few]))))


def main() -> None:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = typed(compose("curve", overrides=OVERRIDES), CurveConfig)
    pools = with_few_unsafe(load_pools(settings, print), SHARE)
    recipe = build_recipe(settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_curve(pools, recipe, recipe_settings(settings, recipe), settings.grid, folder)
        boot = bootstrap_points(
            ResultsTable(folder / RESULTS_FILE).read(), folder / SCORES_FOLDER, "counterfactual", "auroc", 200
        )
    print(f"{len(pools.real):,} real images, {100 * pools.real.records.labels.mean():.1f} % of them unsafe")
    print(boot.points[["control", "ratio", "budget", "mean", "low", "high"]].round(3).to_string(index=False))
    found = decompositions(boot)
    print(decomposition_text(found))
    for part in (found[0].gain, *found[0].parts):
        print(f"{part.name:<14}", *(f"n = {n}: {d:+.3f}" for n, d in zip(part.budgets, part.difference, strict=True)))


if __name__ == "__main__":
    main()
