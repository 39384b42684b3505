"""`make bench`: ours beside the usual way of doing the same, in one run; the ratios carry over to other machines."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torchmetrics.functional.classification import binary_auroc

from guardtrain.curves.engine import make_mixer, run_plan
from guardtrain.curves.grid import GridSettings, grid_points
from guardtrain.embeddings import embed
from guardtrain.embeddings.extraction import extract
from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.heads import LinearHead
from guardtrain.metrics import auroc
from guardtrain.scenes import SceneSource
from guardtrain.training.fit import TrainingRecipe, fit_bank
from guardtrain.training.pools import make_pools
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")
THREADS = 2


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """The fastest of `repeats` goes."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def report(what: str, ours: float, other: str, theirs: float, unit: str = "s") -> None:
    print(f"{what:<58} {ours:8.2f} {unit}   {other:<40} {theirs:8.2f} {unit}   {theirs / ours:5.1f}×", flush=True)


def bench_bank(cache: Path) -> None:
    """The grid of `make curve` as banks, against scikit-learn's logistic regression one run at a time."""
    sources = {"real": SceneSource("real", 4096), "pairs": SceneSource("pairs", 4096), "t": SceneSource("test", 2000)}
    parts = {name: embed(source, DEMO, cache, progress=False) for name, source in sources.items()}
    pools = make_pools("scenes", {k: parts[k] for k in ("real", "pairs")}, {"t": parts["t"]}, seed=0)
    mixer = make_mixer(pools)
    recipe = TrainingRecipe(
        LinearHead(), LossSettings(), OptimizerSettings(), SelectionSettings(), TrainerSettings(progress=False)
    )
    plans = [run_plan(pools, mixer, point.mixture(mixer), recipe) for point in grid_points(GridSettings())]
    x, y = torch.from_numpy(pools.matrix), torch.from_numpy(pools.labels)
    fitted = []
    ours = seconds(lambda: fitted.append(fit_bank(recipe, x, y, plans)))

    def one_by_one() -> None:
        for plan in plans:
            rows = pools.matrix[plan.train].astype(np.float64)
            rows = (rows - rows.mean(0)) / np.sqrt(np.square(rows - rows.mean(0)).mean())
            LogisticRegression(C=1, class_weight="balanced", tol=1e-5, max_iter=1000).fit(
                rows, pools.labels[plan.train]
            )

    with threadpool_limits(1):  # scikit-learn's fits are small: a second BLAS thread slows them
        theirs = seconds(one_by_one)
    report(f"{len(plans)} linear heads to their optimum (D = 256)", ours, "scikit-learn, one by one", theirs)

    test = torch.from_numpy(np.array(parts["t"].matrix))
    labels = torch.from_numpy(parts["t"].records.labels.astype(np.int64))
    scores = fitted[0].probabilities(test)
    ours = seconds(lambda: auroc(scores, labels), 3)
    theirs = seconds(lambda: [binary_auroc(row, labels) for row in scores], 1)
    report(f"AUROC of {len(plans)} heads on 2,000 images", ours, "torchmetrics, one by one", theirs)


def bench_extraction() -> None:
    """Scenes to a store, against the encoder's forward pass alone on images in memory."""
    source = SceneSource("test", 4000, seed=3)
    encoder = load_encoder(DEMO)
    inputs = encoder.prepare(source.images(range(256)))
    forward = seconds(lambda: encoder.forward(inputs), 3) / 256
    with tempfile.TemporaryDirectory() as folder:
        ours = seconds(lambda: extract(source, DEMO, Path(folder) / "store", progress=False)) / 4000
    report("render, embed and store an image (demo encoder)", 1e3 * ours, "forward pass alone", 1e3 * forward, "ms")


def bench_start() -> None:
    """The command line's help, against Python's own start."""
    ours = seconds(lambda: subprocess.run([sys.executable, "-m", "guardtrain.cli", "--help"], capture_output=True), 5)
    bare = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], capture_output=True), 5)
    report("guardtrain --help", ours, "python -c pass", bare)


def main() -> None:
    torch.set_num_threads(THREADS)
    print(f"torch {torch.__version__}, {THREADS} threads; the last column is theirs ÷ ours")
    with tempfile.TemporaryDirectory() as cache:
        bench_bank(Path(cache))
    bench_extraction()
    bench_start()


if __name__ == "__main__":
    main()
