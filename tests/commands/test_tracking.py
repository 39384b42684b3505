"""What W&B, TensorBoard and MLflow get of a curve, a training and an export; no server and no key is needed."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from guardtrain.cli import main
from guardtrain.curves.results import ResultsTable
from guardtrain.errors import ConfigError
from guardtrain.files import file_sha256
from guardtrain.installing import install_line
from guardtrain.tracking.registry import require_tracker
from guardtrain.tracking.settings import LoggerSettings
from guardtrain.tracking.tracker import TrackedWork
from tests.commands.conftest import SMALL_DATA
from tests.tracking.wandb_file import OfflineRun

GRID = ["head=linear", "grid.budgets=[32,64]", "grid.ratios=[0,0.5]", "grid.controls=[paired]", "grid.seeds=2"]
CURVE = ["curve", *SMALL_DATA, *GRID, "out=curve", "plot.formats=[png]"]
LICENSED = ["curve", "--config-dir", "conf", *CURVE[1:], "data=licensed"]
SECRET = "hunter2"
CSV = Path("curve/logs/version_0/metrics.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A curve tracked by W&B, which has neither key nor mode: 8 runs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tracked")
        patch.chdir(folder)
        patch.setenv("WANDB_DATA_DIR", str(folder / "staging"))
        patch.setenv("NETRC", str(folder / "none"))
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        data = folder / "conf" / "data" / "licensed.yaml"
        data.parent.mkdir(parents=True)
        data.write_text("defaults: [scenes, _self_]\nabout: {real: {licence: cc-by-4.0}}\n")
        assert main([*LICENSED, "logger=wandb", f"logger.uri=https://me:{SECRET}@mlflow.example"]) == 0
        yield folder


def _offline(out: str | Path) -> list[OfflineRun]:
    return [OfflineRun(path) for path in sorted(Path(out).glob("wandb/offline-run-*"))]


def test_a_curve_is_one_run_with_table_figure_config_and_lineage(folder: Path, cache_dir: Path) -> None:
    (tracked,) = _offline("curve")
    assert (tracked.run.display_name, tracked.run.job_type) == ("curve-scenes", "curve")
    assert tracked.config["grid"]["budgets"] == [32, 64]
    frame = ResultsTable(Path("curve/results.parquet")).read()
    whole = frame[frame["slice_kind"] == "all"]
    table = json.loads((tracked.folder / "files" / tracked.history["summary/path"]).read_text())
    summary = pd.DataFrame(table["data"], columns=table["columns"])
    expected = whole.groupby(["test", "control", "budget"])["auroc"].mean()
    mine = summary[summary["metric"] == "auroc"].set_index(["test", "control", "budget"])["mean"]
    assert len(mine) == len(expected) == 2 * 2 * 2
    assert np.allclose(mine[expected.index].astype(float), expected)
    assert (tracked.folder / "files" / tracked.history["curve/path"]).read_bytes() == Path(
        "curve/curve.png"
    ).read_bytes()
    # lineage: made of four stores, which stay where they are
    assert set(tracked.uses) == {f"scenes-{name}-store" for name in ("real", "pairs", "counterfactual", "in_domain")}
    store = tracked.uses["scenes-real-store"]
    about, files = json.loads(store.metadata), {entry.path: entry for entry in store.manifest.contents}
    assert about["licence"] == "cc-by-4.0"
    assert about["encoder_fingerprint"] == whole["encoder"].iloc[0]
    assert {name for name, entry in files.items() if entry.local_path} == {
        "encoder.json",
        "checksums/checksums_0000.sha256",
    }
    named = {name: entry.ref for name, entry in files.items() if entry.ref}
    assert set(named) == {"img_emb/img_emb_0000.npy", "metadata/metadata_0000.parquet"}
    matrix = Path(named["img_emb/img_emb_0000.npy"].removeprefix("file://"))
    assert matrix.is_relative_to(cache_dir)
    sums = Path(files["checksums/checksums_0000.sha256"].local_path).read_text()
    assert file_sha256(matrix) in sums
    results = {entry.path: entry for entry in tracked.makes["scenes-results"].manifest.contents}
    assert Path(results["results.parquet"].local_path).read_bytes() == Path("curve/results.parquet").read_bytes()
    assert [made["name"] for made in tracked.config["lineage"]["makes"]] == ["scenes-results"]


def test_no_secret_is_tracked(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and {"wandb", "staging"} & set(path.parts)]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_guard_is_linked_to_the_curve_it_came_from(folder: Path) -> None:
    (curve,) = _offline("curve")
    assert main(["export", "run=curve", "onnx=false", "pick.metric=auroc"]) == 0
    export = next(each for each in _offline("curve") if each.run.job_type == "export")
    assert export.config["from_run"] == curve.run.run_id != export.run.run_id
    made, used = curve.makes["scenes-results"], export.uses["scenes-results"]
    assert made.digest == used.digest  # so that the server takes them for one
    (guard,) = (each for each in export.makes.values() if each.type == "guard")
    config = json.loads(Path("curve/guard/config.json").read_text())
    about = json.loads(guard.metadata)
    assert about["guard_sha256"] == config["sha256"]
    assert about["encoder_fingerprint"] == config["encoder"]["fingerprint"]
    assert about["data_licences"]["real"] == "cc-by-4.0"
    assert about["data_digest"] == json.loads(made.metadata)["data_digest"]
    assert "model.safetensors" in {entry.path for entry in guard.manifest.contents}


def test_a_curve_goes_on_with_its_run_and_without_a_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Online with a key, where nothing answers: the same run again, offline, and a line that says so."""
    (first,) = (each for each in _offline("curve") if each.run.job_type == "curve")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    grid = [setting.replace("seeds=2", "seeds=3") for setting in LICENSED]
    assert main([*grid, "logger=wandb", "logger.mode=online", "plot.figures=[]"]) == 0
    text = capfd.readouterr().out
    assert "offline: http://127.0.0.1:9 cannot be reached" in text
    runs = [each for each in _offline("curve") if each.run.job_type == "curve"]
    assert [each.run.run_id for each in runs] == [first.run.run_id] * 2
    assert f"send it with: wandb sync {runs[1].folder}" in text


def test_a_training_in_a_sweep_has_group_name_losses_and_its_head(folder: Path) -> None:
    wanted = ["mixture.budget=64", "guard=false", "selection=fixed", "optimizer.steps=5", "head=mlp"]
    assert main(["train", "-m", *SMALL_DATA, *wanted, "mixture.seed=3", "logger=wandb", "out=many/seeds"]) == 0
    (file,) = Path("many/seeds").rglob("*.wandb")
    tracked = OfflineRun(file.parent)
    assert tracked.run.run_group == "many-seeds"
    assert "mixture.seed=3" in tracked.run.display_name
    assert {"train_loss", "counterfactual/auroc"} <= tracked.seen
    head = {entry.path: entry for entry in tracked.makes["scenes-head"].manifest.contents}
    (weights,) = Path("many/seeds").rglob("head.safetensors")
    assert Path(head["head.safetensors"].local_path).read_bytes() == weights.read_bytes()


def test_a_run_that_is_finished_is_tracked_once_and_that_is_said(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    train = ["train", *SMALL_DATA, "mixture.budget=32", "selection=fixed", "guard=false", "out=late"]
    assert "wandb" not in run(*train, "logger=csv")
    assert "wandb gets what this run came to; its losses are in late/logs" in run(*train, "logger=wandb")
    (tracked,) = _offline("late")
    assert tracked.run.job_type == "train" and tracked.makes
    assert "wandb has this run already (" in run(*train, "logger=wandb")
    assert len(_offline("late")) == 1
    assert len(list(Path("late/logs").iterdir())) == 1


def test_a_server_that_does_not_answer_costs_seconds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guardtrain.tracking import wandb_tracker

    monkeypatch.setattr(wandb_tracker, "INIT_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        work = TrackedWork("curve", "curve-x", folder / "silent", "key", {})
        tracker = wandb_tracker.WandbTracker(LoggerSettings("wandb", mode="online"), work, said.append)
        tracker.close()
    assert tracker.mode == "offline"
    assert "W&B       offline: " in said[0]
    assert "wandb sync" in said[-1]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError, match=rf"logger={kind} needs .* {re.escape(install_line('tracking'))}"):
        require_tracker(LoggerSettings(kind))


def test_tensorboard_has_the_figure_and_the_table(run) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(*CURVE, "logger=tensorboard")
    (file,) = Path("curve/tensorboard").rglob("events.*")
    events = EventAccumulator(str(file.parent)).Reload()
    assert "curve" in events.Tags()["images"]
    assert {"summary/text_summary", "config/text_summary", "lineage/text_summary"} <= set(events.Tags()["tensors"])
    frame = ResultsTable(Path("curve/results.parquet")).read()
    own = frame.query("slice_kind == 'all' and test == 'in_domain' and control == 'none' and budget == 64")
    assert events.Scalars("in_domain/auroc/real only")[0].value == pytest.approx(own["auroc"].mean(), abs=1e-6)
    assert CSV.is_file()


def test_mlflow_has_one_run_that_is_gone_on_with(run) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    for seeds in (1, 2):
        run(*CURVE, f"grid.seeds={seeds}", "logger=mlflow")
    assert os.environ.get("MLFLOW_TRACKING_URI") is None
    client = MlflowClient((Path("curve") / "mlruns").absolute().as_uri())
    experiment = client.get_experiment_by_name("guardtrain")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    assert {"curve.png", "lineage.json", "config.json", "summary.csv", "results"} <= {
        entry.path for entry in client.list_artifacts(tracked.info.run_id)
    }
    assert tracked.data.metrics["runs"] == 8
    assert CSV.is_file()
