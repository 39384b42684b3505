from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from guardtrain.curves.results import ResultsTable
from guardtrain.guards.guard import Guard

pytest.importorskip("peft", reason="needs the extra lora")

DATA = ["data.real.n=120", "data.pairs.n=40", "data.test.counterfactual.n=40", "data.test.in_domain.n=40"]
FINETUNE = ["finetune", *DATA, "mixture.budget=32", "lora.steps=4", "lora.batch_size=8", "lora.evaluate_every=2"]
OUT = Path("outputs/finetune/scenes")


def test_from_images_to_a_tuned_encoder_its_metrics_and_a_guard(run) -> None:
    text = run(*FINETUNE, "lora.folds=0", "guard=false")
    for part in ("the linear probe of the frozen encoder", "mixture: 16 real + 16 pair images", "adapters of rank 8"):
        assert part in text
    # two runs in one table: the probe, under the key that train gives it, and the head on the tuned encoder
    frame = ResultsTable(OUT / "results.parquet").read()
    assert set(frame["head"]) == {"linear (pair-aware)", "linear on LoRA (pair-aware)"}
    assert frame.groupby("head")["encoder"].nunique().eq(1).all() and frame["encoder"].nunique() == 2
    assert (frame.groupby("run")["test"].nunique() == 2).all()
    probe = frame[frame["head"] == "linear (pair-aware)"]
    # one against the other, on the same images: the table's figures, and intervals of their difference
    assert "The tuned encoder against the frozen one's linear probe" in text
    against = pd.read_parquet(OUT / "against_probe.parquet")
    against = against[(against["category"] == "all") & (against["source"] == "all") & (against["judged_on"] == "all")]
    whole = frame[frame["slice"] == "all"].set_index(["head", "test"])
    for name, head in (("linear probe", "linear (pair-aware)"), ("tuned", "linear on LoRA (pair-aware)")):
        own = against[(against["kind"] == "metric") & (against["guard"] == name)].set_index(["data", "metric"])["value"]
        for test in ("counterfactual", "in_domain"):
            assert own[test, "auroc"] == pytest.approx(whole.loc[(head, test), "auroc"], abs=1e-6)
            assert own[test, "accuracy"] == pytest.approx(whole.loc[(head, test), "accuracy"], abs=1e-6)
    change = against[against["kind"] == "difference"].set_index(["data", "metric"]).loc[("counterfactual", "auroc")]
    assert change["low"] <= change["value"] <= change["high"]
    run("train", *DATA, "mixture.budget=32", "selection=fixed", "guard=false", "out=alone")
    alone = ResultsTable("alone/results.parquet").read()
    assert set(alone["run"]) == set(probe["run"])
    assert alone["auroc"].to_numpy() == pytest.approx(probe["auroc"].to_numpy(), abs=1e-6, nan_ok=True)
    # nothing is done twice
    again = run(*FINETUNE, "lora.folds=0", "guard=false")
    assert "the encoder is tuned already" in again and "this run is there already" in again
    # the folder is one of train's: its guard is of the tuned encoder, and finds it
    tuned = frame[frame["head"] != "linear (pair-aware)"]["encoder"].iloc[0]
    run("export", f"run={OUT}", "out=guard", "onnx=false")
    assert Guard.load(Path("guard")).spec.fingerprint == tuned
    run("scenes", "n=6", "out=photos")
    # the contact sheet beside them is no image of theirs
    text = run("predict", "guard=guard", "out=scored.parquet", "photos")
    assert text.splitlines()[0] == "passed over: 1 .csv, 1 drawn by guardtrain (photos/contact_sheet.png)"
    assert "images      6" in text.splitlines()
    judged = pq.read_table("scored.parquet")["id"].to_pylist()
    assert judged == sorted(str(file) for file in Path("photos/images").iterdir())
    # other commands take the encoder by one word
    run("embed", "--config-dir", str(OUT / "conf"), "encoder=tuned", "source=scenes", "source.n=6", "out=store")
    assert json.loads(Path("store/encoder.json").read_text())["fingerprint"] == tuned
    assert np.load("store/img_emb/img_emb_0000.npy").shape == (6, 256)
    option = yaml.safe_load((OUT / "conf" / "encoder" / "tuned.yaml").read_text())
    assert Path(option["checkpoint"]).is_absolute()


def test_data_without_images_and_encoders_that_cannot_be_tuned_are_refused(run, tmp_path: Path) -> None:
    embedded = ["data=stores", "data.real.path=a", "data.pairs.path=b"]
    assert "encoder=precomputed names none" in run("finetune", *embedded, "encoder=precomputed", code=2)
    assert "data.real (StoreSource) gives embeddings, and finetune needs the images" in run(
        "finetune", *embedded, code=2
    )
    assert "lora.rank must be >= 1" in run(*FINETUNE, "lora.rank=0", code=2)
    assert "encoder.crops is 5" in run(*FINETUNE, "encoder.crops=5", code=2)
    assert not list(tmp_path.glob("outputs/*/*/results.parquet"))
