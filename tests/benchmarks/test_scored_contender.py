"""Scores that others published in a table stand beside a guard: the figures are scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from guardtrain.benchmarks.scored_contender import scored_contender
from guardtrain.cli import main
from guardtrain.errors import DataError
from tests.guards.toys import toy_guard, toy_images

N = 120


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        got = main(["benchmark", *arguments, "replicates=40", "formats=[png]", "out=o", "reference=null"])
        captured = capsys.readouterr()
        assert got == code, captured.err
        return captured.out + captured.err

    return command


def measured(guard: str) -> pd.Series[Any]:
    frame = pd.read_parquet("o/benchmark.parquet")
    all_of_it = (frame[["judged_on", "category", "source"]] == "all").all(axis=1)
    frame = frame[(frame["kind"] == "metric") & (frame["guard"] == guard) & all_of_it]
    return frame.set_index("metric")["value"]


def test_scores_of_others_beside_a_guard(run: Callable[..., str]) -> None:
    toy_guard(Path("mine"), name="mine")
    x, y = toy_images(N, 1)
    names = np.array([f"{k:04d}" for k in range(N)])
    np.savez("a.npz", x=x, y=y, name=names)
    g = np.random.default_rng(0)
    score = np.clip(0.3 * y + g.uniform(size=N) * 0.8, 0, 1).round(2)  # ties, and certainty
    score[:4] = [0, 1, 1e-9, 1 - 1e-9]
    there = np.arange(N) % 5 != 0
    table = pd.DataFrame({"id": names, "score": score})[there].sample(frac=1, random_state=0)
    table.to_csv("theirs.csv", index=False)
    data = "data={a: {path: a.npz, features: x, label: y, id: name, encoder: {name: toy, normalized: true}}}"
    text = run("guards=[mine,{scores: theirs.csv}]", data)
    assert "theirs against mine on 'a'" in text
    assert "no answer" in Path("o/report.md").read_text()
    found = measured("theirs")
    assert found["auroc"] == pytest.approx(roc_auc_score(y[there], score[there]))
    assert found["f1"] == pytest.approx(f1_score(y[there], score[there] >= 0.5))
    kept = pd.read_parquet("o/scores.parquet")
    kept = kept[kept["guard"] == "theirs"]
    assert (kept["outcome"] == "no answer").sum() == (~there).sum()

    # any scale, where decisions are given; and alone, under a name
    decided = pd.DataFrame(
        {"image": names, "score": 10 * score - 3, "decision": np.where(score > 0.7, "Unsafe", "safe")}
    )
    decided.to_parquet("logits.parquet")
    run("guards=[{scores: logits.parquet, name: they}]", data)
    found = measured("they")
    assert found["auroc"] == pytest.approx(roc_auc_score(y, score))
    assert found["f1"] == pytest.approx(f1_score(y, score > 0.7))

    assert "allowed" not in run("guards=[{scores: theirs.csv, point: strict}]", data, code=2)
    table.assign(id="x" + table["id"]).to_csv("theirs.csv", index=False)
    assert "of no image of 'a': they name images such as 'x" in run("guards=[mine,{scores: theirs.csv}]", data, code=2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ids": ["a"], "score": [0.1]}, "no column id or image .* Did you mean 'ids'"),
        ({"id": ["a"], "scores": [0.1]}, "no column score in .* Did you mean 'scores'"),
        ({"id": ["a"], "score": ["high"]}, "no numbers"),
        ({"id": ["a"], "score": [None]}, "no score in"),
        ({"id": ["a", "a"], "score": [0.1, 0.2]}, "'a' has several scores"),
        ({"id": ["a"], "score": [1.5]}, r"lie in \[1.5, 1.5\]; without a column 'decision'"),
        ({"id": ["a"], "score": [1.5], "decision": ["block"]}, "'block'; a decision is one of safe, unsafe, review"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pd.DataFrame(columns).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(DataError, match=message):
        scored_contender(str(tmp_path / "s.csv"), "theirs")
