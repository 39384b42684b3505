"""`import guardtrain as gt`: the page on it as it stands, and that it gives what the commands give."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import guardtrain as gt
from guardtrain.api.settings import curve_settings, head_node
from guardtrain.cli import main
from guardtrain.curves.results import ResultsTable
from guardtrain.errors import ConfigError, DataError, MixtureError
from tests.commands.conftest import SMALL_DATA, SMALL_GRID

PAGE = (Path(__file__).parents[2] / "docs" / "pages" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture(scope="module")
def pools() -> gt.Pools:
    """Drawn embeddings of which one direction tells the label."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 300)
    x = rng.normal(size=(600, 12)).astype(np.float32)
    x[:, 0] += labels
    halves = {"id": [f"half-{i}" for i in range(300)], "pair_id": [f"pair-{i // 2}" for i in range(300)]}
    real, pairs = gt.from_arrays(x[:300], labels[:300]), gt.from_arrays(x[300:], labels[300:], **halves)
    return gt.make_pools(real, pairs, test={"held": gt.hold_out("pairs", fraction=0.5)})


def _images(folder: Path, pool: str, n: int) -> None:
    source = gt.SceneSource(pool, n=n)
    records, rows = source.records(), []
    for i in range(n):
        source.image(i).save(folder / f"{records.ids[i]}.png")
        rows.append((f"{records.ids[i]}.png", ("safe", "unsafe")[records.labels[i]], records.pair_ids[i]))
    columns = ["image", "label", "pair_id"][: 2 + (pool != "real")]
    pd.DataFrame([row[: len(columns)] for row in rows], columns=columns).to_csv(folder / f"{pool}.csv", index=False)


def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _images(tmp_path, "real", 160)
    _images(tmp_path, "pairs", 160)
    gt.SceneSource("test", n=2).image(1).save("photo.png")
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(compile(block, "python.md", "exec"), {})
    text = capsys.readouterr().out
    assert "AUROC on 'pairs'" in text and re.search(r"^\('(safe|unsafe)',\)$", text, re.MULTILINE)
    assert Path("curve/curve.png").stat().st_size > 10_000
    assert gt.Guard.load("guard").predict("photo.png").probabilities.shape == (1,)
    assert set(gt.Guard.load("arrays_guard").points) == {"strict"}


def test_all_names_are_there_and_shown() -> None:
    assert set(gt.__all__) <= set(dir(gt))
    for name in gt.__all__:
        assert (getattr(gt, name).__doc__ or "").strip(), name


def test_a_curve_has_the_runs_and_numbers_of_the_command(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["curve", *SMALL_DATA, *SMALL_GRID, "plot.figures=[]", "out=theirs"]) == 0
    real, pairs = (gt.embed(gt.SceneSource(pool, n=400), "demo", cache=cache_dir) for pool in ("real", "pairs"))
    tests = {
        "counterfactual": gt.embed(gt.SceneSource("test", n=200), "demo", cache=cache_dir),
        "in_domain": gt.embed(gt.SceneSource("real", n=200, seed=1), "demo", cache=cache_dir),
    }
    pools = gt.make_pools(real, pairs, test=tests, name="scenes")
    ours = gt.run_curve(
        pools,
        gt.create_head("linear"),
        budgets=[16, 64],
        ratios=[0, 0.5],
        controls=["paired", "unpaired"],
        seeds=2,
        out=tmp_path / "ours",
    )
    theirs = ResultsTable(tmp_path / "theirs" / "results.parquet").read()
    order = ["run", "test", "slice_kind", "slice"]
    a, b = (f.drop(columns="seconds").sort_values(order).reset_index(drop=True) for f in (ours.frame, theirs))
    pd.testing.assert_frame_equal(a, b)
    again = gt.run_curve(
        pools, "linear", budgets=[16, 64], ratios=[0, 0.5], controls=["paired", "unpaired"], seeds=2, out="theirs"
    )
    assert again.keys == ours.keys and len(ResultsTable("theirs/results.parquet").read()) == len(theirs)


@pytest.mark.parametrize("name", gt.list_heads())
def test_a_head_by_name_and_as_an_object_have_the_same_settings(name: str) -> None:
    """Else the runs of one would be no runs of the other."""
    assert head_node(gt.create_head(name)) == curve_settings([f"head={name}"]).head


def test_what_is_set_otherwise_stands_in_a_heads_settings() -> None:
    node = head_node(gt.create_head("mlp", hidden=[8, 4]))
    assert node == {"_target_": "guardtrain.heads.MLPHead", "hidden": [8, 4], "dropout": 0.0}


def test_a_head_is_judged_as_scikit_learn_judges_it(pools: gt.Pools) -> None:
    trained = gt.train_head(pools, "linear", budget=64, ratio=0.5, seed=1)
    held = pools.tests["held"]
    right = roc_auc_score(held.records.labels, trained.probabilities(held.matrix[:]))
    assert trained.metrics.loc["held", "auroc"] == pytest.approx(right, abs=1e-6)
    assert right > 0.65


def test_what_a_curve_answers_is_what_the_statistics_say(pools: gt.Pools, tmp_path: Path) -> None:
    curve = gt.run_curve(
        pools, ["linear", "knn"], budgets=[16, 64], ratios=[0, 0.5], controls=["paired"], seeds=3, out=tmp_path / "c"
    )
    needed = curve.budget_needed(auroc=0.6)
    assert list(needed["head"].unique()) == ["linear (pair-aware)", "knn"] and len(needed) == 4
    boot = curve.bootstrap()
    assert (boot.test, boot.metric) == ("held", "auroc") and curve.bootstrap() is boot, "made once"
    for _, row in needed.iterrows():
        mine = boot.points[(boot.points["head"] == row["head"]) & (boot.points["control"] == row["control"])]
        at = dict(zip(mine["budget"], mine["mean"], strict=True))
        if np.isneginf(row["images"]):
            assert at[16] > 0.6
        elif np.isposinf(row["images"]):
            assert max(at.values()) < 0.6
        else:
            assert 16 <= row["images"] <= 64
    assert (curve.multiplier()["control"] == "paired").all() and len(curve.pair_worth()) == 4
    best = curve.best("auroc", head="linear")
    assert best.run.key in curve.keys and best.about[1].label.startswith("linear")
    guard = gt.export_guard(best, tmp_path / "g", points={"strict": gt.Rule("fpr", 0.2, method="point")}, onnx=False)
    np.testing.assert_array_equal(
        guard.predict(pools.tests["held"].matrix[:5]).probabilities,
        gt.Guard.load(tmp_path / "g").predict(pools.tests["held"].matrix[:5]).probabilities,
    )


def test_an_audit_prints_as_the_command_does(pools: gt.Pools) -> None:
    audit = gt.run_audit(pools, replicates=100, permutations=2)
    assert audit.sizes["real"][0] == 300 and "told without looking" in gt.audit_text(audit)
    with pytest.raises(ConfigError, match="no setting 'replicate'; it knows: max_images"):
        gt.run_audit(pools, replicate=3)


@dataclass
class Centred:
    """A head of one's own: a linear head under another name."""

    name: str = "centred"
    convex: ClassVar[bool] = True

    def bank(self, heads: int, dim: int) -> Any:
        """As many heads."""
        return gt.create_head("linear").bank(heads, dim)


def test_a_head_of_ones_own(pools: gt.Pools) -> None:
    own = gt.train_head(pools, Centred(), budget=32, loss="bce")
    ours = gt.train_head(pools, "linear", budget=32, loss="bce")
    assert own.rows["head"].unique().tolist() == ["centred"] and own.run.key != ours.run.key
    x = torch.randn(4, 12).numpy()
    np.testing.assert_allclose(own.probabilities(x), ours.probabilities(x), atol=1e-2)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda pools: gt.create_head("liner"), ConfigError, "Did you mean 'linear'"),
        (lambda pools: gt.create_encoder("openai_vit_b23"), ConfigError, "openai_vit_b32"),
        (lambda pools: gt.create_head("mlp", hiden=[3]), ConfigError, "hidden"),
        (lambda pools: gt.hold_out("pairs"), ConfigError, "exactly one of groups, fraction, split, categories"),
        (lambda pools: gt.hold_out("reel", fraction=0.5), ConfigError, "'real' or 'pairs'"),
        (lambda pools: gt.train_head(pools, budget=5000), MixtureError, "mixture.budget=300"),
        (lambda pools: gt.run_curve(pools, budgets=[5000], out="x"), MixtureError, "The most at which all of it fits"),
        (lambda pools: gt.run_curve(pools, 7, out="x"), ConfigError, "A head is a name of"),
        (lambda pools: gt.run_curve(pools, "mlp_linear_knn", out="x"), ConfigError, "Give them as a list"),
        (lambda pools: gt.run_curve(pools, loss="bc", out="x"), ConfigError, "bc"),
        (
            lambda pools: gt.read_records(__file__, colums={}),
            ConfigError,
            "no setting 'colums'; it knows: path,",
        ),
        (lambda pools: gt.read_records("nowhere.csv"), DataError, "no table nowhere.csv"),
        (lambda pools: gt.from_arrays(np.ones((3, 2)), [0, 1]), DataError, r"\(3, 2\)"),
        (lambda pools: gt.make_pools(pools.real, pools.pairs, test={}), DataError, "at least one test set"),
        (lambda pools: gt.export_guard(None, "x", onx=True), ConfigError, "no setting 'onx'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_said(
    wrong: Callable[[gt.Pools], object], error: type[Exception], said: str, pools: gt.Pools, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said) as caught:
        wrong(pools)
    assert isinstance(caught.value, gt.GuardtrainError)
    assert not (tmp_path / "x").exists()
