from __future__ import annotations

import json
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.engines.conftest import SWEEP, Guardtrain, files, rows

pytestmark = pytest.mark.engines


def _asked(server: str, path: str, body: dict[str, object]) -> dict[str, object]:
    data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urlopen(Request(f"{server}/api/2.0/mlflow/{path}", data, kind), timeout=60) as answer:
        return dict(json.load(answer))


def _file(server: str, run: str, name: str) -> bytes:
    with urlopen(f"{server}/get-artifact?run_id={run}&path={name}", timeout=60) as answer:
        return bytes(answer.read())


def test_a_server_has_the_rows_and_the_guards_of_a_sweep_and_of_an_export(mlflow_server: str, tmp_path: Path) -> None:
    guardtrain = Guardtrain(tmp_path, {"MLFLOW_TRACKING_URI": mlflow_server})
    tracked = [*(word for word in SWEEP if not word.startswith("logger")), "logger=mlflow"]
    tracked += ["out=sweep", "hydra.sweep.subdir=${mixture.budget}"]
    text = guardtrain("train", "-m", "mixture.budget=64,128", *tracked)
    assert "2 done, 0 skipped, 0 failed" in text
    (experiment,) = _asked(mlflow_server, "experiments/search", {"max_results": 10, "filter": "name = 'guardtrain'"})[
        "experiments"
    ]
    about = {"experiment_ids": [experiment["experiment_id"]], "max_results": 10}
    found = _asked(mlflow_server, "runs/search", about)["runs"]
    assert [run["info"]["status"] for run in found] == ["FINISHED"] * 2
    kept = rows(tmp_path / "sweep")
    for run in found:
        number = run["info"]["run_id"]
        config = json.loads(_file(mlflow_server, number, "config.json"))
        budget = str(config["mixture"]["budget"])
        metrics = {entry["key"]: entry["value"] for entry in run["data"]["metrics"]}
        (row,) = [row for row in kept[budget] if (row["test"], row["slice"]) == ("counterfactual", "all")]
        assert metrics["counterfactual/auroc"] == pytest.approx(row["auroc"])
        made = files(tmp_path / "sweep" / budget / "guard")
        for name, content in made.items():
            assert _file(mlflow_server, number, f"guard/{name}") == content, name
