"""A sweep of 24 trainings in two processes beside one after the other, and what a training takes besides training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

JOBS = int(os.environ.get("GUARDTRAIN_BENCH_JOBS", "24"))
PROCESSES = 2
ROUNDS = int(os.environ.get("GUARDTRAIN_BENCH_ROUNDS", "1"))
_TRAINED = re.compile(r"trained in ([\d.]+) s")
_EMBEDDED = re.compile(r"dimensions \(([\d.]+) s\)")
_IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)")
_MOST = 9  # packages whose imports are told one by one


def command(*arguments: str, cache: Path) -> float:
    """Seconds that a `guardtrain` command takes, from its start to its exit."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "guardtrain.cli", *arguments],
        env={**os.environ, "GUARDTRAIN_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - started


def sweep(out: Path, cache: Path, *launcher: str) -> float:
    return command("train", "-m", f"mixture.seed=range({JOBS})", f"out={out}", *launcher, cache=cache)


def parts(out: Path, cache: Path, *settings: str) -> dict[str, float]:
    """Seconds of a lone `guardtrain train` part by part, training last; Python's clock of imports costs some itself."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "guardtrain.cli", "train", f"out={out}", *settings],
        env={**os.environ, "GUARDTRAIN_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stdout + done.stderr
    packages: dict[str, float] = {}
    for microseconds, package in _IMPORTED.findall(done.stderr):
        packages[package] = packages.get(package, 0.0) + int(microseconds) / 1e6
    largest = sorted(packages, key=packages.__getitem__, reverse=True)[:_MOST]
    found = {f"import {name}": packages[name] for name in largest}
    found[f"import {len(packages) - len(largest)} others"] = sum(packages.values()) - sum(found.values())
    found["records and embeddings"] = sum(map(float, _EMBEDDED.findall(done.stdout)))
    trained = _TRAINED.search(done.stdout)
    assert trained is not None
    rest = seconds - sum(found.values()) - float(trained[1])
    return {**found, "config, mixture, results, guard, start and exit": rest, "training": float(trained[1])}


def overheads(out: Path) -> list[float]:
    """Seconds of each job of a sweep besides the training itself."""
    found = []
    for folder in sorted(path.parent for path in out.glob("*/job.json")):
        found.append(json.loads((folder / "job.json").read_text())["seconds"] - _seconds_of_training(folder))
    return found


def _seconds_of_training(folder: Path) -> float:
    trained = _TRAINED.search((folder / "train.log").read_text())
    assert trained is not None
    return float(trained[1])


def heads(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("*/head.safetensors"))}


def same_heads(root: Path, cache: Path) -> list[str]:
    """The launchers under which a sweep of three jobs gives the same head files, byte for byte, as one after the other.

    Raises:
        AssertionError: they differ.
    """
    few = ["train", "-m", "mixture.seed=range(3)", "guard=false", "trainer.threads=1"]
    command(*few, f"out={root / 'basic'}", cache=cache)
    wanted, found = heads(root / "basic"), []
    assert len(wanted) == 3
    for name, plugin in (("processes", "joblib"), ("slurm_local", "submitit"), ("ray_local", "ray")):
        if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None:
            continue
        command(*few, f"out={root / name}", f"hydra/launcher={name}", cache=cache)
        assert heads(root / name) == wanted, name
        found.append(name)
    return found


def bench_sweep(report: Callable[..., None]) -> dict[str, Any]:
    """24 seeds of `guardtrain train` as it comes (budget 512, with a guard), with either launcher."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        cache = root / "cache"
        command("train", f"out={root / 'first'}", cache=cache)  # embeds
        alone = command("train", f"out={root / 'alone'}", cache=cache)
        plain = command("train", f"out={root / 'plain'}", "guard=false", cache=cache)
        rounds = []
        for i in range(ROUNDS):
            basic = sweep(root / f"basic{i}", cache)
            both = sweep(root / f"both{i}", cache, "hydra/launcher=processes", f"hydra.launcher.n_jobs={PROCESSES}")
            again = sweep(root / f"both{i}", cache)
            rounds.append({"basic": basic, "processes": both, "ratio": basic / both, "nothing left to do": again})
            print(
                f"  round {i + 1}: {JOBS} jobs {basic:.1f} s, in {PROCESSES} processes {both:.1f} s: {basic / both:.2f}"
            )
        equal = same_heads(root / "launchers", cache)
        print(f"  the same heads as one after the other: {', '.join(equal)}")
        later = sorted(overheads(root / "basic0")[1:])
        figures["one `guardtrain train`, besides training (s)"] = alone - _seconds_of_training(root / "alone")
        figures["the same without a guard (s)"] = plain - _seconds_of_training(root / "plain")
        figures["one job of a sweep, besides training (s, median)"] = later[len(later) // 2]
        figures["the sweep again, nothing left to do (s)"] = min(entry["nothing left to do"] for entry in rounds)
        best = max(rounds, key=lambda entry: entry["ratio"])
        name = f"{JOBS} trainings in {PROCESSES} processes"
        report(name, best["processes"], "one after the other", best["basic"])
        for what, value in figures.items():
            print(f"  {what}: {value:.1f}")
        print("  one `guardtrain train` part by part (s), seconds by the clock of imports:")
        single = parts(root / "parts", cache)
        for what, value in single.items():
            print(f"    {what:<46} {value:5.2f}")
        return {**figures, "parts": single, "sweep rounds": rounds, "same heads under": equal}
