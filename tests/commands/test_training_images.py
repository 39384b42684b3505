"""A guard on the very images that it was trained on: benchmark and calibrate leave them out and say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from guardtrain.guards.guard import Guard
from tests.guards.toys import toy_guard

PHOTOS, EDITS = 60, 120
DATA = ["data=manifest", "data.real.path=photos/records.csv", "data.pairs.path=edits/records.csv"]


@pytest.fixture
def trained(run: Callable[..., str]) -> set[str]:
    """By the README's recipe a guard of scenes that lie here as files; the ids of its training images, as it says."""
    run("scenes", "pool=real", f"n={PHOTOS}", "out=photos")
    run("scenes", "pool=pairs", f"n={EDITS}", "out=edits")
    run("train", *DATA, "mixture.budget=48", "selection=fixed", "guard=false", "out=run")
    run("export", "run=run", "out=guard", "onnx=false", "neighbours=true", "calibration.replicates=20")
    return set(Guard.load("guard").neighbours.ids)


def test_training_images_are_left_out_of_a_guards_figures_and_counted(
    run: Callable[..., str], trained: set[str]
) -> None:
    toy_guard(Path("toy"))
    edits = pd.read_csv("edits/records.csv")
    own = set(edits["id"]) & trained
    assert 10 < len(own) < len(edits)
    told = f"{len(own)} of {EDITS} images of 'edits' were among manifest-linear-pair-aware's training images: left out"
    text = run("benchmark", "guards=[guard]", "data=edits/records.csv", "replicates=20", "out=b", "formats=[png]")
    assert told in " ".join(text.split())
    scores = pd.read_parquet("b/scores.parquet").set_index("id")
    assert set(scores.index[scores["outcome"] == "set aside"]) == own
    left = scores[scores["outcome"] == "answered"]
    assert len(left) == len(edits) - len(own)
    frame = pd.read_parquet("b/benchmark.parquet")
    whole = (frame["kind"] == "metric") & (frame["judged_on"] == "all") & (frame["category"] == "all")
    (f1,) = frame.loc[whole & (frame["source"] == "all") & (frame["metric"] == "f1"), "value"]
    assert f1 == pytest.approx(f1_score(left["label"], left["decision"] == "unsafe"))
    assert told in " ".join(Path("b/report.md").read_text().split())
    # scored before, and kept in where that is asked for
    text = run("benchmark", "guards=[guard]", "data=edits/records.csv", "replicates=20", "out=b", "formats=[png]",
               "training_images=keep")  # fmt: skip
    assert "1 of them before" in text
    assert "they are kept, and its figures too good" in " ".join(text.split())
    assert (pd.read_parquet("b/scores.parquet")["outcome"] == "answered").all()
    assert "allowed: leave_out, keep" in run(
        "benchmark", "guards=[guard]", "data=edits/records.csv", "training_images=drop", code=2
    )
    # all of a data set's images
    edits[edits["id"].isin(own)].to_csv("edits/own.csv", index=False)
    assert f"All {len(own)} images of 'own' are among the training images of" in run(
        "benchmark", "guards=[guard]", "data=edits/own.csv", "out=c", code=2
    )

    text = " ".join(run("calibrate", "guard=guard", "data=edits/records.csv", "onnx=false", "out=mine",
                        "calibration.replicates=20").split())  # fmt: skip
    assert f"{len(own)} of {EDITS} images of 'edits' were among manifest-linear-pair-aware's training images" in text
    mine = json.loads(Path("mine/config.json").read_text())
    assert mine["validation"]["images"] == len(edits) - len(own)
    assert any(f"{len(own)} images more were among its training images" in note for note in mine["notes"])
    # what it was calibrated on is known, too, and its training images still are
    text = " ".join(run("benchmark", "guards=[mine]", "data=edits/records.csv", "replicates=20", "out=d").split())
    assert f"{len(own)} of {EDITS} images of 'edits' were among" in text
    assert f"{len(edits) - len(own)} of {EDITS} images of 'edits' are among those that" in text
    assert "probabilities and thresholds need both" in run(
        "calibrate", "guard=guard", "data=edits/own.csv", "onnx=false", "out=none", code=2
    )
    assert not Path("none").exists()


def test_a_guard_that_does_not_know_its_images_says_so_once(run: Callable[..., str]) -> None:
    for name in ("one", "two"):
        toy_guard(Path(name), name=name)
    x = np.random.default_rng(0).normal(size=(40, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for name in ("a", "b"):
        np.savez(f"{name}.npz", x=x, y=np.arange(40) % 2)
    sets = [f"{n}: {{path: {n}.npz, features: x, label: y, encoder: {{name: toy, normalized: true}}}}" for n in "ab"]
    text = " ".join(
        run("benchmark", "guards=[one,two]", f"data={{{', '.join(sets)}}}", "replicates=20", "out=b").split()
    )
    assert text.count("Unknown is which images one, two were trained on") == 1
    assert (pd.read_parquet("b/scores.parquet")["outcome"] == "answered").all()
