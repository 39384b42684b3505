"""`guardtrain curve` from images to figure, on small pools."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from guardtrain.cli import main
from guardtrain.curves.results import ResultsTable
from guardtrain.curves.scores import ScoresFolder
from guardtrain.embeddings import embed
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.mixtures import Mixer, Pool
from guardtrain.scenes import SceneSource
from tests.commands.conftest import SMALL_DATA, SMALL_GRID

pytestmark = pytest.mark.long
CURVE = ["curve", *SMALL_DATA, *SMALL_GRID]
PLAIN = [*CURVE, "plot.figures=[]"]  # where the figure is not what is tested: it takes as long as all else
RUNS = 2 * 2 * 3  # budgets × seeds × (real only, paired, unpaired)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """What `PLAIN` leaves in its folder."""
    folder = tmp_path_factory.mktemp("curve") / "plain"
    assert main([*PLAIN, f"out={folder}"]) == 0
    return folder


def _rows(out: str | Path) -> pd.DataFrame:
    frame = ResultsTable(Path(out) / "results.parquet").read()
    return frame.drop(columns="seconds").sort_values(["run", "test", "slice_kind", "slice"]).reset_index(drop=True)


@pytest.mark.apart
def test_the_two_commands_that_add_the_loss_add_it(run) -> None:
    """What the hint says is pasted, as a reader would."""
    *_, loss = run(*PLAIN, "head=linear").partition("  Not measured: the loss. These two commands add it:\n")
    missing = [line for line in loss.splitlines()[:2] if line.startswith("    guardtrain curve ")]
    assert len(missing) == 2 and "loss=bce" in missing[0]
    for line in missing:
        text = run(*shlex.split(line)[1:])
    assert re.search(r"^    loss +[+−]", text, re.MULTILINE) and "Not measured" not in text


def test_the_main_job_end_to_end(run) -> None:
    text = run(*CURVE)
    out = Path("outputs/curve/scenes")
    frame = _rows(out)
    assert frame["run"].nunique() == RUNS
    assert set(frame["test"]) == {"counterfactual", "in_domain"}
    assert set(frame["slice_kind"]) == {"all", "category", "source"}
    for part in ("real only", "pairs ½ (replace)", "unpaired control", f"{RUNS} runs", "Shortcut check"):
        assert part in text
    with Image.open(out / "curve.png") as figure:
        assert figure.width > 1000
    assert "</svg>" in (out / "curve.svg").read_text()
    # the scores kept beside the table give its metrics again
    keys, scores, records = ScoresFolder(out / "scores").read("counterfactual")
    whole = frame[(frame["test"] == "counterfactual") & (frame["slice_kind"] == "all")].set_index("run")
    for key, row in zip(keys, scores.ranked, strict=True):
        assert whole.loc[key, "auroc"] == pytest.approx(roc_auc_score(records.labels, row), abs=1e-9)


def test_a_run_is_scikit_learns_logistic_regression_on_the_mixtures_images(run, cache_dir: Path) -> None:
    run(*PLAIN, "loss=bce", "loss.l2=1")
    settings = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")
    real, pairs, test = (
        embed(SceneSource(pool=pool, n=n, seed=0), settings, cache_dir)
        for pool, n in (("real", 400), ("pairs", 400), ("test", 200))
    )
    mixer = Mixer(Pool.from_records(real.records), Pool.from_records(pairs.records, name="pairs"))
    mixture = mixer.mix(budget=64, ratio=0.5, arm="replace", control="unpaired", seed=1)
    x = np.concatenate([real.matrix[mixture.real], pairs.matrix[mixture.pairs]])
    y = np.concatenate([real.records.labels[mixture.real], pairs.records.labels[mixture.pairs]])
    scale = np.sqrt(np.square(x - x.mean(0)).mean())
    reference = LogisticRegression(C=1, class_weight="balanced", tol=1e-8, max_iter=5000).fit(x / scale, y)
    frame = _rows("outputs/curve/scenes")
    mine = frame[
        (frame["control"] == "unpaired")
        & (frame["budget"] == 64)
        & (frame["seed"] == 1)
        & (frame["test"] == "counterfactual")
        & (frame["slice_kind"] == "all")
    ]
    expected = roc_auc_score(test.records.labels, reference.decision_function(test.matrix / scale))
    assert mine["auroc"].item() == pytest.approx(expected, abs=1e-4)


def test_three_heads_stand_side_by_side(run) -> None:
    few = ["grid.budgets=[16,32]", "grid.ratios=[0,0.5]", "grid.seeds=2", "plot.figures=[]", "out=three"]
    text = run("curve", *SMALL_DATA, *few, "head.mlp.hidden=[8]", "optimizer.steps=20")
    frame = _rows("three")
    controls = frame.groupby("head")["control"].agg(set).to_dict()
    alike = {"none", "paired", "unpaired"}  # half of the real images are unsafe, so that no control has to balance them
    assert controls == {"mlp (pair-aware)": {*alike, "shuffled"}, "linear (pair-aware)": alike, "knn": alike}
    assert "partners: none for linear (pair-aware) and knn, whose training looks at no image's partner" in text
    assert "Best real-only head: " in text and "unpaired control" not in text
    again = run("curve", *SMALL_DATA, *few, "head.mlp.hidden=[8]", "optimizer.steps=20")
    assert again.count("runs are there already") == 3
    told = run("export", "run=three", "pick.head=linear", "pick.metric=auroc", "onnx=false")
    assert "(linear (pair-aware), budget " in told and "is trained again" in told
    wrong = run("export", "run=three", "pick.head=ridge", "pick.metric=auroc", code=2)
    assert "No run is left with pick.head=ridge; there are: knn, linear, mlp." in wrong


def test_only_what_is_missing_is_run(run, plain: Path) -> None:
    shutil.copytree(plain, "outputs/curve/scenes")
    before = _rows("outputs/curve/scenes")
    again = run(*PLAIN)
    assert f"{RUNS} of {RUNS} runs are there already" in again
    assert "trained" not in again
    more = run(*PLAIN, "grid.seeds=3")
    assert f"{RUNS} of {RUNS * 3 // 2} runs are there already" in more
    after = _rows("outputs/curve/scenes")
    assert after["run"].nunique() == RUNS * 3 // 2
    pd.testing.assert_frame_equal(after[after["run"].isin(before["run"])].reset_index(drop=True), before)
    # another head is another set of runs in the same table, and the summary shows the asked one only
    other = run(*PLAIN, "head=mlp", "optimizer.steps=20")
    assert f"{RUNS} of {RUNS} runs trained" in other
    assert "mlp (pair-aware) head" in other
    assert "linear (pair-aware) head" not in other


def test_interrupted_and_started_again_gives_the_uninterrupted_result(
    run, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardtrain.curves import engine

    monkeypatch.setattr(engine, "FIRST_COMMIT", 6)
    original, calls = engine.fit_bank, []

    def interrupted(*arguments, **settings):
        calls.append(len(arguments[3]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    monkeypatch.setattr(engine, "fit_bank", interrupted)
    text = run(*PLAIN, "out=parts", code=130)
    assert "the same command continues" in text
    assert _rows("parts")["run"].nunique() == RUNS // 2
    assert f"{RUNS // 2} of {RUNS} runs are there already" in run(*PLAIN, "out=parts")
    parts, whole = _rows("parts"), _rows(plain)
    ranks = ["auroc", "average_precision", "recall_at_fpr5"]  # in other banks a couple of images may change places
    pd.testing.assert_frame_equal(parts[ranks], whole[ranks], rtol=0, atol=0.02)
    pd.testing.assert_frame_equal(parts.drop(columns=ranks), whole.drop(columns=ranks), rtol=1e-4, atol=1e-4)


def test_results_do_not_depend_on_a_warm_cache(run, tmp_path: Path) -> None:
    few = [f"data.{pool}.n=100" for pool in ("real", "pairs", "test.counterfactual", "test.in_domain")]
    small = [*PLAIN, *few, "grid.budgets=[16]", f"cache_dir={tmp_path / 'cold'}"]
    run(*small, "out=a")
    run(*small, "out=b")
    pd.testing.assert_frame_equal(_rows("a"), _rows("b"))


def test_changed_test_records_are_not_mixed_with_old_scores(run, plain: Path) -> None:
    shutil.copytree(plain, "outputs/curve/scenes")
    text = run(*PLAIN, "data.test.counterfactual.n=100", code=2)
    assert "changed since the scores" in text


def test_add_arm_with_the_more_real_control(run) -> None:
    run(*PLAIN, "grid.arms=[add]", "grid.controls=[paired,real]", "grid.seeds=1", "grid.budgets=[32]")
    frame = _rows("outputs/curve/scenes").drop_duplicates("run").set_index("control")
    assert frame.loc["paired", ["n_real", "n_pair_images", "n_images"]].tolist() == [32, 16, 48]
    assert frame.loc["real", ["n_real", "n_pair_images", "n_images"]].tolist() == [48, 0, 48]


@pytest.mark.data
def test_masks_experiment_reproduces_logistic_regression(run, data_dir: Path) -> None:
    """The first two rows of the study on real features; scikit-learn on the same images gives .546 ... .982."""
    plain = ["head=linear", "loss=bce", "loss.l2=3", "loss.class_weight=none"]
    run("curve", "experiment=masks", f"data_dir={data_dir}", *plain)
    frame = _rows("outputs/curve/masks")
    means = frame[frame["slice_kind"] == "all"].groupby(["control", "n_pair_images"])["pair_both_right"].mean()
    assert 0.45 < means["none", 0] < 0.7
    for control in ("paired", "unpaired"):
        assert np.allclose([means[control, n] for n in (10, 20, 40, 80)], [0.8, 0.88, 0.95, 0.98], atol=0.04)


@pytest.mark.data
def test_pair_aware_heads_need_few_pairs(run, data_dir: Path) -> None:
    """Five pairs do what forty do without knowing of pairs, on real features."""
    few = ["head=linear", "grid.controls=[paired]", "grid.ratios=[0.025]"]
    run("curve", "experiment=masks", f"data_dir={data_dir}", *few)
    frame = _rows("outputs/curve/masks")
    assert frame.loc[frame["slice_kind"] == "all", "pair_both_right"].mean() >= 0.97


@pytest.mark.data
def test_fire_experiment_from_jpegs(run, data_dir: Path) -> None:
    """A third of its photographs: to embed them all takes half a minute."""
    pd.read_csv(data_dir / "fire/labels.csv").iloc[::3].to_csv("third.csv", index=False)
    few = ["head=linear", "data.real.path=third.csv", "grid.budgets=[64,144]"]
    run("curve", "experiment=fire", f"data_dir={data_dir}", *few)
    frame = _rows("outputs/curve/fire")
    whole = frame[(frame["slice_kind"] == "all") & (frame["budget"] == 144)]
    assert whole["auroc"].mean() >= 0.98


def test_ctrl_c_while_training_says_how_to_go_on(tmp_path: Path) -> None:
    """A real interrupt of a real process, while Lightning, which handles it in its own way, is at work."""
    arguments = [*CURVE, "head=mlp", "optimizer.steps=100000", "logger=csv", f"out={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "guardtrain.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background, as the tests may be, ignores what Ctrl-C sends, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list(tmp_path.glob("out/logs/*/metrics.csv")):  # the first hundred steps
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted; the same command continues" in errors
    assert "Traceback" not in errors


def test_plot_shows_the_last_curve_or_refuses_to_mix_recipes(run, plain: Path) -> None:
    shutil.copytree(plain, "outputs/curve/scenes")
    run(*PLAIN, "grid.seeds=1", "loss.l2=10")
    plot = ["plot", "results=outputs/curve/scenes", "plot.figures=[curve]", "plot.formats=[png]", "plot.report=false"]
    assert "AUROC on 'counterfactual'" in run(*plot)
    assert "differ in l2" in run(*plot, "all_runs=true", code=2)


def test_settings_a_recipe_does_not_use_do_not_change_its_runs(run, plain: Path) -> None:
    shutil.copytree(plain, "outputs/curve/scenes")
    assert f"{RUNS} of {RUNS} runs are there already" in run(
        *PLAIN, "optimizer.lr=0.1", "optimizer.steps=7", "trainer.threads=1"
    )


def test_a_sweep_shares_results_and_draws_a_figure_for_each_job(run) -> None:
    drawn = ["plot.figures=[curve]", "plot.formats=[png]", "plot.report=false"]
    run("curve", "-m", *CURVE[1:], "head=linear,mlp", *drawn, "grid.seeds=1", "optimizer.steps=20", "out=sweep")
    assert _rows("sweep").groupby("head")["run"].nunique().to_dict() == {
        "linear (pair-aware)": 6,
        "mlp (pair-aware)": 6,
    }
    assert len(list(Path("sweep").glob("*/curve.png"))) == 2


def test_csv_logger_keeps_the_training_losses(run) -> None:
    run(*PLAIN, "grid.seeds=1", "logger=csv")
    logs = pd.concat(pd.read_csv(file) for file in Path("outputs/curve/scenes/logs").glob("version_*/metrics.csv"))
    assert logs["train_loss"].notna().any()
