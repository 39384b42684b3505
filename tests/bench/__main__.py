"""`make bench`: ours beside the usual way of doing the same, in one run; the ratios carry over to other machines."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set them
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from torchmetrics.functional.classification import binary_auroc

from guardtrain.embeddings.extraction import extract
from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.metrics import auroc
from guardtrain.scenes import SceneSource
from guardtrain.training.progress import quiet_lightning
from tests.bench.benchmark import bench_benchmark
from tests.bench.embed import bench_embed
from tests.bench.guards import bench_guards
from tests.bench.linear import bench_linear
from tests.bench.mlp import bench_mlp
from tests.bench.ray_engine import bench_ray
from tests.bench.serve import bench_serve
from tests.bench.sweep import bench_sweep

DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")
THREADS = 2
OUT = Path("outputs/bench.json")
FIGURES: dict[str, Any] = {}


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
    FIGURES[what] = {"ours": ours, "other": other, "theirs": theirs, "unit": unit, "ratio": theirs / ours}


def bench_metrics() -> None:
    """All heads' AUROC at once, against torchmetrics head by head."""
    scores = torch.rand(280, 2000, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 2, (2000,), generator=torch.Generator().manual_seed(1))
    ours = seconds(lambda: auroc(scores, labels), 3)
    theirs = seconds(lambda: [binary_auroc(row, labels) for row in scores], 1)
    report("AUROC of 280 heads on 2,000 images", ours, "torchmetrics, one by one", theirs)


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


def main(parts: Sequence[str]) -> None:
    torch.set_num_threads(THREADS)
    quiet_lightning()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, {THREADS} threads; the last column is theirs ÷ ours")
    benches: dict[str, Callable[[], dict[str, float] | None]] = {
        "linear": lambda: bench_linear(report),
        "mlp": bench_mlp,
        "metrics": bench_metrics,
        "extraction": bench_extraction,
        "embed": bench_embed,
        "ray": lambda: bench_ray(report),
        "guards": lambda: bench_guards(report),
        "serve": lambda: bench_serve(report),
        "benchmark": lambda: bench_benchmark(report),
        "sweep": lambda: bench_sweep(report),
        "start": bench_start,
    }
    for name in parts or benches:
        FIGURES.update(benches[name]() or {})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    machine = {"torch": torch.__version__, "processor": platform.processor(), "threads": THREADS}
    OUT.write_text(json.dumps({"machine": machine, "figures": FIGURES}, indent=2))
    print(f"figures   {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
