"""Embedding on a local Ray beside embedding in one process: images a second once the encoder is loaded."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.ray_engine import RayEngine
from guardtrain.embeddings.worker import Engine, LocalEngine
from guardtrain.encoders import EncoderSettings
from tests.bench.embed import make_files, random_vit_b32

IMAGES = int(os.environ.get("GUARDTRAIN_BENCH_IMAGES", "2000"))
SHARD = max(1, IMAGES // 40)  # as many as leave neither actor idle at the end
ROUNDS = 3
ACTORS = 2


def rate(source: Any, settings: EncoderSettings, folder: Path, engine: Engine) -> tuple[float, float]:
    """Images a second from when the plan is written (the encoder is loaded then) to the end, and seconds before."""
    started = time.time()
    extract(source, settings, folder, progress=False, shard_size=SHARD, engine=engine)
    ended, begun = max(file.stat().st_mtime for file in folder.glob("metadata/*")), (folder / "extraction.json").stat()
    return len(source.records()) / (ended - begun.st_mtime), begun.st_mtime - started


def same(a: Path, b: Path) -> bool:
    """Whether two stores hold the same bytes."""
    files = [{p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.name != ".lock"} for root in (a, b)]
    return files[0] == files[1]


def bench_ray(report: Callable[..., None]) -> dict[str, Any]:
    """2,000 JPEGs under ViT-B/32 with random weights, in turns, so that what else the machine does falls on both."""
    import ray

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        source = make_files(root / "images", IMAGES)
        settings, _ = random_vit_b32(root)
        rounds = []
        for i in range(ROUNDS):
            local, loading = rate(source, settings, root / f"local{i}", LocalEngine())
            spread, start = rate(source, settings, root / f"ray{i}", RayEngine(ACTORS))
            ray.shutdown()
            rounds.append((local, spread, spread / local, loading, start))
            print(f"  round {i + 1}: local {local:.1f}, Ray {spread:.1f} images a second: {spread / local:.2f}; before "
                  f"the first shard {loading:.1f} and {start:.1f} s", flush=True)  # fmt: skip
        equal = same(root / "local0", root / "ray0")
        arithmetic = json.loads((root / "ray0" / "extraction.json").read_text())["arithmetic"]
    best = [max(column) for column in zip(*rounds, strict=True)]
    what = f"embed a JPEG on Ray, {ACTORS} actors (ViT-B/32, {arithmetic})"
    report(what, 1e3 / best[1], "in one process", 1e3 / best[0], "ms")
    ratios = sorted(each[2] for each in rounds)
    return {
        "ray_over_local_median": ratios[len(ratios) // 2],
        "ray_over_local_worst": ratios[0],
        "ray_start_seconds": min(each[4] for each in rounds),
        "ray_stores_equal": float(equal),
    }
