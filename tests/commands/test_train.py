from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from guardtrain.config_checks import build
from guardtrain.curves.results import ResultsTable
from guardtrain.embeddings import embed
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.heads.artifact import load_head, read_description
from guardtrain.metrics import guard_metrics_collection, record_pair_index
from guardtrain.scenes import SceneSource
from tests.commands.conftest import SMALL_DATA

TRAIN = ["train", *SMALL_DATA, "mixture.budget=128", "guard=false"]
OUT = Path("outputs/train/scenes")


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_its_metrics_and_logs(run, cache_dir: Path, head: str) -> None:
    text = run(*TRAIN, f"head={head}", "optimizer.steps=60")
    for part in ("mixture: 64 real + 64 pair images", "counterfactual", "in_domain", "AUROC", "Pairs with both sides"):
        assert part in text
    assert list(OUT.glob("logs/version_*/metrics.csv"))
    # the saved head, on embeddings made anew, has the metrics the table says: torchmetrics' own, as a second opinion
    description = read_description(OUT)
    trained = load_head(OUT, build(description["head"], "head"))
    settings = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")
    test = embed(SceneSource(pool="test", n=200, seed=0), settings, cache_dir)
    probabilities = trained.probabilities(torch.tensor(test.matrix), test.spec)
    collection = guard_metrics_collection()
    labels = torch.from_numpy(test.records.labels.astype("int64"))
    collection.update(preds=probabilities, target=labels, pair_index=record_pair_index(test.records))
    expected = {name: value.item() for name, value in collection.compute().items()}
    frame = ResultsTable(OUT / "results.parquet").read()
    row = frame[(frame["test"] == "counterfactual") & (frame["slice_kind"] == "all")].iloc[0]
    for name, value in expected.items():
        assert row[{"recall_at_fpr": "recall_at_fpr5"}.get(name, name)] == pytest.approx(value, abs=2e-4), name
    assert json.loads((OUT / "head.json").read_text())["run"] == row["run"]


def test_a_head_of_pairs_without_pairs_is_called_what_it_is(run) -> None:
    train = [part for part in TRAIN if part != "guard=false"]
    text = run(*train, "head=pair_direction", "mixture.ratio=0")
    assert "there is none here: this is gda. Take head=gda, or give it pairs" in " ".join(text.split())
    config = json.loads((OUT / "guard" / "config.json").read_text())
    assert config["training"]["head"] == "gda (pair_direction without pairs)"
    assert "`gda (pair_direction without pairs)`" in (OUT / "guard" / "README.md").read_text()
    text = run(*train, "head=pair_direction", "mixture.ratio=0.5", "out=paired")
    assert "made of pairs" not in text
    assert json.loads(Path("paired/guard/config.json").read_text())["training"]["head"] == "pair_direction"


def test_a_run_that_is_there_is_not_trained_again(run) -> None:
    run(*TRAIN)
    weights = (OUT / "head.safetensors").read_bytes()
    again = run(*TRAIN)
    assert "there already" in again
    assert "trained in" not in again
    assert (OUT / "head.safetensors").read_bytes() == weights


def test_train_and_curve_agree_on_the_same_run(run) -> None:
    fixed = [*SMALL_DATA, "head=linear"]
    run("train", *fixed, "guard=false", "selection=fixed", "mixture.budget=64", "mixture.seed=1")
    run("curve", *fixed, "grid.budgets=[64]", "grid.ratios=[0.5]", "grid.seeds=2")
    single = ResultsTable(OUT / "results.parquet").read()
    curve = ResultsTable("outputs/curve/scenes/results.parquet").read()
    same = curve[curve["run"] == single["run"].iloc[0]]
    assert len(same) == len(single) > 10
    assert same["auroc"].to_numpy() == pytest.approx(single["auroc"].to_numpy(), abs=1e-6, nan_ok=True)


def test_a_head_that_was_overwritten_or_lost_is_trained_again(run) -> None:
    run(*TRAIN)
    first = json.loads((OUT / "head.json").read_text())["run"]
    run(*TRAIN, "head=mlp", "optimizer.steps=20")
    again = run(*TRAIN)
    assert "trained in" in again
    assert json.loads((OUT / "head.json").read_text())["run"] == first
    (OUT / "head.safetensors").unlink()
    assert "trained in" in run(*TRAIN)
    assert (OUT / "head.safetensors").is_file()
