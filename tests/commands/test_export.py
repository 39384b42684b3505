from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from guardtrain.commands.data import load_pools
from guardtrain.config import CurveConfig, TrainConfig
from guardtrain.config_checks import build, typed
from guardtrain.curves.results import ResultsTable
from guardtrain.curves.scores import ScoresFolder
from guardtrain.guards.calibration import sigmoid
from guardtrain.guards.directory import is_guard
from guardtrain.guards.guard import Guard
from guardtrain.heads.artifact import load_head, read_description
from guardtrain.installing import install_line
from guardtrain.training.pools import Pools
from tests.commands.conftest import SMALL_DATA, SMALL_GRID

TRAIN = ["train", *SMALL_DATA, "mixture.budget=128"]
OUT = Path("outputs/train/scenes")
QUICK = ["calibration.replicates=20", "onnx=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A folder in which a training without a guard has run."""
    from guardtrain.cli import main

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*TRAIN, "guard=false"]) == 0
    assert not (folder / OUT / "guard").exists()
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, run: Callable[..., str]) -> Callable[..., str]:
    """`run`, in a copy of that folder."""
    shutil.copytree(trained / "outputs", tmp_path / "outputs")
    return run


def _pools(folder: Path = OUT, schema: type = TrainConfig) -> Pools:
    return load_pools(typed(OmegaConf.load(folder / ".hydra" / "config.yaml"), schema), lambda _: None)


def test_training_ends_with_a_guard_of_its_head(run) -> None:
    text = run(*TRAIN)
    for part in ("operating points", "calibration error", "by chance alone", "head.onnx", "from the guard"):
        assert part in text
    guard = Guard.load(OUT / "guard")
    assert guard.about["training"]["run"] == read_description(OUT)["run"]
    head = load_head(OUT, build(read_description(OUT)["head"], "head"))
    pools = _pools()
    with torch.no_grad():
        logits = head.bank(torch.from_numpy(pools.real.matrix[:50]))[0].double().numpy()
    np.testing.assert_allclose(guard.logits(pools.real.matrix[:50], pools.spec), logits, rtol=0, atol=2e-5)
    # 64 of the 400 real images were trained on; the thresholds are from the others
    said = guard.about["validation"]
    assert (said["images"], said["unsafe"]) == (336, 168)
    tests = {test["test"]: test for test in guard.about["tests"]}
    frame = ResultsTable(OUT / "results.parquet").read()
    row = frame[(frame["test"] == "in_domain") & (frame["slice_kind"] == "all")].iloc[0]
    assert tests["in_domain"]["auroc"] == row["auroc"]
    written = (OUT / "guard" / "config.json").stat().st_mtime_ns
    assert "there already" in run(*TRAIN)
    assert (OUT / "guard" / "config.json").stat().st_mtime_ns == written


def test_without_the_extra_onnx_there_is_a_guard_all_the_same(here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    text = here(*TRAIN)
    assert install_line("onnx") in text
    assert is_guard(OUT / "guard")
    assert not (OUT / "guard" / "head.onnx").exists()
    text = here("export", f"run={OUT}", "out=again")  # the same, whoever makes it
    assert f"no head.onnx in the guard: ONNX needs onnxscript: {install_line('onnx')}" in text
    assert is_guard(Path("again")) and not Path("again/head.onnx").exists()
    for asked in ("onnx=true", "whole=true"):
        assert install_line("onnx") in here("export", f"run={OUT}", asked, code=2)


def test_a_run_without_images_left_says_why_there_is_no_guard(run) -> None:
    text = run("train", *SMALL_DATA, "mixture.budget=400", "mixture.ratio=0")
    assert "no guard is made: Validation has 0 safe and 0 unsafe images" in text
    assert "validation=NAME" in text
    assert (OUT / "head.safetensors").is_file()
    assert not (OUT / "guard").exists()


def test_export_with_everything(here) -> None:
    text = here(
        "export",
        f"run={OUT}",
        "out=mine",
        "name=my guard",
        "licence=mit",
        "review.enabled=true",
        "review.misses=0.1",
        "category_points.enabled=true",
        "category_minimum=4",
        "neighbours=true",
        "points.strict.target=0.2",
        "~points.permissive",
        "+points.high={kind: recall, target: 0.9, method: guaranteed}",
        "default_point=high",
        "prior=0.02",
        *QUICK,
    )
    guard = Guard.load("mine")
    assert guard.prior == 0.02
    assert "probabilities hold where 2 % are unsafe; they were moved there" in text
    assert "guard my guard" in text
    assert list(guard.points) == ["strict", "balanced", "high", "review"]
    assert guard.default_point == "high"
    assert guard.points["strict"].rule.target == 0.2
    assert guard.points["review"].safe_rule.target == pytest.approx(0.9)
    assert (guard.about["licence"], guard.taxonomy) == ("mit", None)
    assert len(guard.categories) == len(guard.category_points) == 9
    assert guard.category_head is not None
    assert sum(guard.about["category_head"]["images"].values()) == 64  # the unsafe half of 128
    assert "names categories: 9 of them, rightly" in text
    pools = _pools()
    point = guard.points["balanced"]
    found = guard.predict(pools.real.matrix[:400], point="balanced", explain=2)
    # what the point promises of validation is what these images give that were not trained on
    ids = {near.id for row in found.neighbours for near in row}
    mixed = set(guard.neighbours.ids)
    assert len(mixed) == 128
    assert ids <= mixed
    unused = ~np.isin(pools.real.records.ids.astype(str), list(mixed))
    labels = pools.real.records.labels
    assert found.flagged[unused & (labels == 0)].mean() == pytest.approx(point.fpr.value)
    assert found.flagged[unused & (labels == 1)].mean() == pytest.approx(point.recall.value)


def test_validation_can_be_a_test_set(here) -> None:
    text = here("export", f"run={OUT}", "validation=in_domain", *QUICK)
    said = Guard.load(OUT / "guard").about["validation"]
    assert (said["images"], said["is_test"]) == (200, True)
    assert "the test set in_domain" in text
    assert "allowed: unused, val, or a test set: counterfactual, in_domain" in here(
        "export", f"run={OUT}", "validation=nothing", code=2
    )
    assert "No record of data.real has split 'val'" in here("export", f"run={OUT}", "validation=val", code=2)


def test_records_with_split_val_are_validation_and_of_no_run(run, tmp_path: Path) -> None:
    """Data of one's own, embedded elsewhere: a table of 300, of which every third is marked."""
    g = np.random.default_rng(0)
    label = np.arange(300) % 2
    features = g.normal(size=(300, 8)).astype(np.float32) + label[:, None]
    split = np.where(np.arange(300) % 3 == 0, "val", "train")
    np.savez(tmp_path / "mine.npz", features=features, label=label, split=split)
    data = [
        "data=arrays",
        "encoder=precomputed",
        "data.real.path=mine.npz",
        "+data.real.split=split",
        "data.pairs=null",
    ]
    data += ["~data.test.counterfactual", "mixture.budget=64", "mixture.ratio=0", "guard=false"]
    run("train", *data, "+data.about={real: {licence: cc0-1.0, access: gated}}")
    run("export", "run=outputs/train/arrays", "validation=val", *QUICK)
    guard = Guard.load("outputs/train/arrays/guard")
    assert guard.about["validation"]["images"] == 100
    marked = guard.predict(features[split == "val"], point="strict")
    safe = label[split == "val"] == 0
    assert marked.flagged[safe].mean() == pytest.approx(guard.points["strict"].fpr.value)
    assert guard.about["data"]["real"]["licence"] == "cc0-1.0"
    assert "| real | cc0-1.0 | gated |" in (guard.path / "README.md").read_text()
    # unused ones are others: neither marked, nor held out for the test, nor trained on
    run("export", "run=outputs/train/arrays", "out=unused", *QUICK)
    assert Guard.load("unused").about["validation"]["images"] == 140 - 64
    assert "only its embeddings are there" in run(
        "export", "run=outputs/train/arrays", "whole=true", "out=whole", "onnx=false", code=2
    )


def test_a_limit_on_validation(here) -> None:
    here("export", f"run={OUT}", "validation_limit=100", *QUICK)
    assert Guard.load(OUT / "guard").about["validation"]["images"] == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run=nowhere"], "holds no .hydra/config.yaml"),
        (["points.strict.kind=fnr"], "points.strict: A threshold's rule is fpr"),
        (["+points.mine={goal: 1}"], "points.mine: there is no 'goal'"),
        (["default_point=mine"], "there are: strict, balanced, permissive"),
        (["calibration.kinds=[plat]"], "'plat'"),
        (["pick.metric=auroc"], "there is nothing to pick"),
        (["wat=1"], "no setting 'wat'"),
        (["out=outputs"], "is no guard: it is not overwritten"),
    ],
    ids=lambda value: str(value),
)
def test_refusals(here, arguments: list[str], words: str) -> None:
    given = arguments if arguments[0].startswith("run=") else [f"run={OUT}", *arguments]
    assert words in here("export", *given, *QUICK, code=2)


def test_a_head_of_other_settings_than_the_folders_is_refused(here) -> None:
    description = json.loads((OUT / "head.json").read_text())
    (OUT / "head.json").write_text(json.dumps(description | {"run": "0" * 16}))
    assert "was not trained by the config there" in here("export", f"run={OUT}", *QUICK, code=2)


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    from guardtrain.cli import main

    folder = tmp_path_factory.mktemp("curve")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["curve", *SMALL_DATA, *SMALL_GRID, "plot.figures=[]"]) == 0
    return folder / "outputs" / "curve" / "scenes"


def test_the_best_run_of_a_curve_on_a_test_set(run, curve: Path) -> None:
    pick = ["pick.metric=auroc", "pick.on=test", "pick.test=counterfactual"]
    text = run("export", f"run={curve}", *pick, "out=best", *QUICK)
    guard = Guard.load("best")
    frame = ResultsTable(curve / "results.parquet").read()
    rows = frame[(frame["test"] == "counterfactual") & (frame["slice_kind"] == "all")]
    rows = rows[rows["control"] != "unpaired"]
    row = rows.set_index("run").loc[guard.about["training"]["run"]]
    assert row["auroc"] == rows["auroc"].max()
    assert guard.about["training"]["mixture"]["seed"] == row["seed"]
    assert f"was picked of {len(rows)} by auroc on the test set counterfactual" in " ".join(text.split())
    assert "figures to quote" not in (guard.path / "README.md").read_text()
    # trained again it is the head of that row: the same scores on the same test images
    keys, scores, _ = ScoresFolder(curve / "scores").read("counterfactual")
    pools = _pools(curve, CurveConfig)
    logits = guard.logits(pools.tests["counterfactual"].matrix[:])
    np.testing.assert_allclose(sigmoid(logits), scores.probabilities[keys.tolist().index(row.name)], atol=1e-3)
    assert not list((curve / "checkpoints").glob("guard-*"))


def test_the_best_run_of_a_curve_on_validation(run, curve: Path) -> None:
    text = run("export", f"run={curve}", "pick.metric=auroc", "out=best", *QUICK)
    guard = Guard.load("best")
    picked = guard.about["training"]["picked"]
    pools = _pools(curve, CurveConfig)
    store = ScoresFolder(curve / "validation")
    (name,) = (test for test in store.tests() if test.startswith("real-"))
    keys, scores, records = store.read(name)
    assert not set(records.ids) & {one for test in pools.tests.values() for one in test.records.ids}
    assert (picked["of"], picked["metric"], len(keys)) == (8, "auroc", 12)
    assert "4 controls are no candidates unless pick.control names them" in text
    assert re.search(r"Pairs with both sides right +– +– +\.\d{3}  \.\d{3}", text)  # beside the best
    own = sigmoid(guard.logits(pools.real.matrix[:]))
    np.testing.assert_allclose(
        own, scores.probabilities[keys.tolist().index(guard.about["training"]["run"])], atol=1e-3
    )
    card = (guard.path / "README.md").read_text()
    assert "No test set had a part in picking the run: these are the figures to quote." in card
    assert f"picked of 8 by auroc on {picked['on']}: {picked['value']:.3f}, which is better than" in card
    assert f"picked of 8 runs by auroc on {picked['on']}" in text


def test_a_pick_among_fewer(run, curve: Path) -> None:
    pick = ["pick.metric=auroc", "pick.on=test", "pick.test=in_domain"]
    run("export", f"run={curve}", *pick, "pick.budget=16", "pick.ratio=0.5", "pick.control=unpaired", "out=a", *QUICK)
    mixture = Guard.load("a").about["training"]["mixture"]
    assert (mixture["budget"], mixture["ratio"], mixture["control"]) == (16, 0.5, "unpaired")
    assert "there are: 16, 64" in run("export", f"run={curve}", *pick, "pick.budget=17", code=2)
    said = run("export", f"run={curve}", code=2)
    assert "pick.metric is not given; give one of: auroc" in said
    said = run("export", f"run={curve}", "pick.metric=auroc", "pick.on=test", "pick.test=mine", code=2)
    assert "pick.test is 'mine'; give one of: counterfactual, in_domain" in said
    said = run("export", f"run={curve}", "pick.on=tests", code=2)
    assert "pick.on is 'tests'; allowed: validation, test" in said
