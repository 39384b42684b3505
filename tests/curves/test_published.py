"""Published scores in several forms give the metrics scikit-learn gives, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.metrics import brier_score_loss, roc_auc_score

from guardtrain.curves.bootstrap import bootstrap_points
from guardtrain.curves.display import CurveDisplay
from guardtrain.curves.folder import kept_keys
from guardtrain.curves.published import PublishedSettings, read_published, seed_replicates, write_published
from guardtrain.curves.results import ResultsTable
from guardtrain.curves.scores import ScoresFolder
from guardtrain.curves.statistics import summarise
from guardtrain.errors import ConfigError, DataError

COLUMNS = {"head": "method", "budget": "n", "seed": "rep", "id": "image", "label": "y", "score": "p"}
N, BUDGETS, REPEATS = 60, (10, 40), 4


def long_table(design: str, seed: int = 0) -> pd.DataFrame:
    """Two methods, two budgets, four repeats; with folds an image is in one of them."""
    rng = np.random.default_rng(seed)
    label = np.arange(N) % 2
    rows = []
    for method in ("b", "a"):
        for n in BUDGETS:
            for rep in range(REPEATS):
                for i in range(N):
                    if design == "folds" and i // 2 % REPEATS != rep:
                        continue
                    p = 1 / (1 + np.exp(-(label[i] - 0.5) * np.log2(n) / 2 - rng.normal()))
                    rows.append((method, n, rep, f"img{i}", int(label[i]), p, "xy"[i % 4 // 2]))
    return pd.DataFrame(rows, columns=["method", "n", "rep", "image", "y", "p", "kind"])


def written(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".npz":
        arrays = {str(name): np.array(frame[name].tolist()) for name in frame}  # texts as U, which needs no pickle
        np.savez(path, **arrays)  # type: ignore[arg-type]
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return str(path)


def settings(path: str, design: str, **more: Any) -> PublishedSettings:
    return PublishedSettings(**{"name": "theirs", "path": path, "columns": dict(COLUMNS), "design": design} | more)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_seeds_become_runs_with_scikit_learns_metrics(tmp_path: Path, suffix: str) -> None:
    frame = long_table("seeds")
    path = written(frame.sample(frac=1, random_state=1), tmp_path / f"scores.{suffix}")
    published = read_published(settings(path, "seeds", columns=COLUMNS | {"category": "kind"}))
    keys, pooled = write_published(published, tmp_path / "out")
    assert (len(keys), pooled) == (16, [])
    table = ResultsTable(tmp_path / "out" / "results.parquet").read()
    for row in table.to_dict("records"):
        own = frame[(frame["method"] == row["head"]) & (frame["n"] == row["budget"]) & (frame["rep"] == row["seed"])]
        if row["slice_kind"] == "category":
            own = own[own["kind"] == row["slice"]]
        assert (row["n_test"], row["n_unsafe"]) == (len(own), own["y"].sum())
        assert row["auroc"] == pytest.approx(roc_auc_score(own["y"], own["p"]))
        assert row["brier"] == pytest.approx(brier_score_loss(own["y"], own["p"]))
        assert (row["control"], row["ratio"], row["n_images"]) == ("none", 0, row["budget"])
    assert set(table["slice"]) == {"all", "x", "y"}
    # the scores are ours too: every statistic can be made again
    points = bootstrap_points(table, tmp_path / "out" / "scores", "theirs", "auroc", 200).points
    expected = summarise(table[table["slice_kind"] == "all"], "auroc")
    assert points["mean"].to_numpy() == pytest.approx(expected["mean"].to_numpy(), abs=1e-6)


def test_folds_are_rows_and_all_of_them_at_once_another(tmp_path: Path) -> None:
    frame = long_table("folds")
    published = read_published(settings(written(frame, tmp_path / "s.csv"), "folds"))
    keys, pooled = write_published(published, tmp_path / "out")
    assert (len(keys), len(pooled)) == (16, 4)
    table = ResultsTable(tmp_path / "out" / "results.parquet").read()
    at_once = ResultsTable(tmp_path / "out" / "pooled" / "results.parquet").read()
    assert (len(table), len(at_once)) == (16, 4)
    for row in [*table.to_dict("records"), *at_once.to_dict("records")]:
        own = frame[(frame["method"] == row["head"]) & (frame["n"] == row["budget"])]
        if row["run"] in keys:
            own = own[own["rep"] == row["seed"]]
        assert row["n_test"] == len(own)
        assert row["auroc"] == pytest.approx(roc_auc_score(own["y"], own["p"]))
    assert kept_keys(tmp_path / "out") == set(keys)
    assert not (tmp_path / "out" / "scores").exists()
    run_keys, scores, records = ScoresFolder(tmp_path / "out" / "pooled" / "scores").read("theirs")
    assert set(run_keys.tolist()) == set(pooled)
    assert scores.probabilities.shape == (4, N)
    fold = dict(zip(frame["image"], frame["rep"], strict=True))
    assert records.column("fold").tolist() == [fold[i] for i in records.ids]
    band = CurveDisplay.from_results(table, [("theirs", "auroc")]).panels[0].points
    assert (band["low"] < band["mean"]).all()


def test_forms_orders_and_scales_do_not_matter(tmp_path: Path) -> None:
    frame = long_table("folds")
    first = read_published(settings(written(frame, tmp_path / "a.csv"), "folds"))
    shuffled = frame.sample(frac=1, random_state=3)
    second = read_published(settings(written(shuffled, tmp_path / "b.parquet"), "folds"))
    assert second.digest == first.digest
    logits = frame.assign(p=logit(frame["p"]))
    third = read_published(settings(written(logits, tmp_path / "c.parquet"), "folds", scale="logit"))
    assert third.rows["score"].to_numpy() == pytest.approx(first.rows["score"].to_numpy(), abs=1e-9)
    other = frame.assign(p=frame["p"].where(frame.index != 5, 0.5))
    assert read_published(settings(written(other, tmp_path / "d.csv"), "folds")).digest != first.digest


def test_again_adds_nothing_and_more_adds_the_rest(tmp_path: Path) -> None:
    frame = long_table("seeds")
    path = written(frame, tmp_path / "s.csv")
    out = tmp_path / "out"
    write_published(read_published(settings(path, "seeds")), out)
    before = ResultsTable(out / "results.parquet").read()
    write_published(read_published(settings(path, "seeds")), out)
    pd.testing.assert_frame_equal(ResultsTable(out / "results.parquet").read(), before)
    assert len(list((out / "scores").glob("part-*.npz"))) == 1
    with pytest.raises(DataError, match="changed since the scores"):
        write_published(
            read_published(settings(written(frame[frame["image"] != "img3"], tmp_path / "t.csv"), "seeds")), out
        )


def test_categories_and_pairs_that_were_mended_are_measured_anew(tmp_path: Path) -> None:
    """Without the new ones the scores are the same, and the rows of the first time would pass for today's."""
    frame, out = long_table("seeds"), tmp_path / "out"
    columns = COLUMNS | {"category": "kind", "pair_id": "pair"}
    number = frame["image"].str.removeprefix("img").astype(int)
    for name, kinds, pairs in (("a", "xy", number // 2), ("b", "yx", (number + 2) % N // 2)):
        table = frame.assign(kind=[kinds[i % 4 // 2] for i in number], pair=[f"p{i}" for i in pairs])
        table["pair"] = table["pair"].where(number < 40 if name == "a" else number < 20, None)
        path = written(table, tmp_path / f"{name}.parquet")
        keys, _ = write_published(read_published(settings(path, "seeds", columns=columns)), out)
        shown = ResultsTable(out / "results.parquet").read()
        shown = shown[shown["run"].isin(kept_keys(out) or ())]
        assert set(shown["run"]) == set(keys)
        assert set(shown.loc[shown["slice_kind"] == "all", "n_pairs"]) == {20 if name == "a" else 10}
        for row in shown[shown["slice_kind"] == "category"].to_dict("records"):
            own = table[
                (table["method"] == row["head"]) & (table["n"] == row["budget"]) & (table["rep"] == row["seed"])
            ]
            own = own[own["kind"] == row["slice"]]
            assert row["auroc"] == pytest.approx(roc_auc_score(own["y"], own["p"]))


def test_images_without_ids_are_matched_by_what_is_known(tmp_path: Path) -> None:
    frame = long_table("folds")
    frame["rating"] = frame["image"].str[3:].astype(int) // 8  # neighbours of one label and fold share a rating
    frame["rating"] += 100 * (frame["image"].isin(["img0", "img8"]))  # but for these two
    columns = {k: v for k, v in COLUMNS.items() if k != "id"}
    shuffled = pd.concat(
        [g.sample(frac=1, random_state=i) for i, (_, g) in enumerate(frame.groupby(["method", "n", "rep"]))]
    )
    made = settings(written(shuffled, tmp_path / "s.csv"), "folds", columns=columns, same_image=["rating"])
    published = read_published(made)
    alone = frame[(frame["method"] == "a") & (frame["n"] == 10)].groupby(["rep", "y", "rating"]).size()
    assert published.told_apart == (alone == 1).sum()
    assert len(published.records) == N
    keys, pooled = write_published(published, tmp_path / "out")
    table = ResultsTable(tmp_path / "out" / "pooled" / "results.parquet").read()
    for row in table[table["run"].isin(pooled)].to_dict("records"):
        own = frame[(frame["method"] == row["head"]) & (frame["n"] == row["budget"])]
        assert row["auroc"] == pytest.approx(roc_auc_score(own["y"], own["p"]))
    assert len(keys) == 16


def test_methods_are_found_in_run_names_renamed_and_chosen(tmp_path: Path) -> None:
    frame = long_table("seeds")
    names = np.array([f"net-{m}|{n}" for m in "ab" for n in BUDGETS])
    run = [int(np.flatnonzero(names == f"net-{m}|{n}")[0]) for m, n in zip(frame["method"], frame["n"], strict=True)]
    arrays = {name: frame[name].to_numpy() for name in ("n", "rep", "y", "p")}
    np.savez(tmp_path / "s.npz", run=run, names=names, image=frame["image"].to_numpy().astype("U9"), **arrays)
    columns = {k: v for k, v in COLUMNS.items() if k != "head"} | {"run": "run"}
    made = settings(str(tmp_path / "s.npz"), "seeds", columns=columns, run_names="names", head_pattern=r"net-(\w)")
    assert read_published(made).heads == ("a", "b")
    made.heads = {"b": "The B"}
    published = read_published(made)
    assert published.heads == ("The B",)
    expected = frame[frame["method"] == "b"].sort_values(["n", "rep", "image"])["p"]
    assert published.rows["score"].to_numpy() == pytest.approx(expected.to_numpy())


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (lambda f: f, {"columns": COLUMNS | {"score": "prob"}}, "no column 'prob'"),
        (lambda f: f, {"columns": {k: v for k, v in COLUMNS.items() if k != "head"}}, "needs head"),
        (lambda f: f, {"columns": COLUMNS | {"budget": None}}, "columns.budget is not given"),
        (lambda f: f.assign(p=f["p"] * 3 - 1), {}, "scale=logit"),
        (lambda f: f.assign(p=f["p"].where(f.index != 3)), {}, "1 scores of .* are missing, the first in row 3"),
        (lambda f: f.assign(n=f["n"] + 0.5), {}, "'budget' .* whole numbers"),
        (lambda f: f.assign(rep="first"), {}, "'seed' .* whole numbers"),
        (lambda f: f.assign(y=f["y"] + 1), {}, "not mapped to safe or unsafe"),
        (lambda f: pd.concat([f, f.tail(1)]), {}, "scored image 'img59' twice"),
        (lambda f: f.iloc[1:], {}, "run head b, budget 10, seed 0 should have scored each of the 60"),
        (lambda f: f, {"design": "folds"}, "in several folds"),
        (lambda f: f.assign(y=f["y"].where(f.index != 0, 1)), {}, "several values of label"),
        (lambda f: f, {"heads": {"c": "C"}}, "no such method: a, b"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, more: dict[str, Any], message: str) -> None:
    path = written(change(long_table("seeds")), tmp_path / "s.csv")
    with pytest.raises(DataError, match=message):
        read_published(settings(path, more.pop("design", "seeds"), **more))


def test_folds_that_do_not_share_out_the_images_are_refused(tmp_path: Path) -> None:
    frame = long_table("folds")
    with pytest.raises(DataError, match=r"design=seeds the run head a, budget 10, seed 0 .* design=folds"):
        read_published(settings(written(frame, tmp_path / "s.csv"), "seeds"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"design": "fold"}, "allowed: folds, seeds"),
        ({"scale": "percent"}, "allowed: probability, logit"),
        ({"columns": {"labels": "y"}}, "columns names 'labels'"),
        ({"head_pattern": "("}, "no regular expression"),
        ({"head_pattern": "x+"}, "needs a group"),
    ],
)
def test_wrong_settings_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings("x.csv", **{"design": "seeds"} | more)


def test_files_that_are_not_there_or_pickled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no scores at"):
        read_published(settings(str(tmp_path / "none.npz"), "seeds"))
    np.savez(tmp_path / "odd.npz", p=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_published(settings(str(tmp_path / "odd.npz"), "seeds"))


def test_replicates_over_seeds_have_the_width_of_students_interval(tmp_path: Path) -> None:
    frame = long_table("folds")
    write_published(read_published(settings(written(frame, tmp_path / "s.csv"), "folds")), tmp_path / "out")
    table = ResultsTable(tmp_path / "out" / "results.parquet").read()
    boot = seed_replicates(table, "theirs", "auroc", replicates=4000)
    students = summarise(table[table["test"] == "theirs"], "auroc").sort_values(["head", "budget"])
    assert boot.points["mean"].to_numpy() == pytest.approx(students["mean"].to_numpy())
    width = (boot.points["high"] - boot.points["low"]).to_numpy() / 2
    assert width == pytest.approx(students["half_width"].to_numpy(), rel=0.25)
    # the same folds at every point: a difference of two points varies as the folds' differences do
    wide = table[table["test"] == "theirs"].pivot_table(index="seed", columns=["head", "budget"], values="auroc")
    change = (wide["a", 10] - wide["b", 10]).std() / 2
    assert (boot.replicates[0] - boot.replicates[2]).std() == pytest.approx(change * 1.62, rel=0.1)
    with pytest.raises(DataError, match="no AUROC on a test set 'x'"):
        seed_replicates(table, "x", "auroc")


@pytest.mark.data
def test_the_published_smid_curve(tmp_path: Path, data_dir: Path) -> None:
    """AUC from 15 to 1,506 training images, all folds at once; the means over folds have bands."""
    from hydra import compose, initialize_config_dir

    from guardtrain.config import IngestConfig, conf_dir, register_schemas
    from guardtrain.config_checks import typed

    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = typed(compose("ingest", [f"data_dir={data_dir}"]), IngestConfig)
    keys, pooled = write_published(read_published(config.published), tmp_path)
    assert (len(keys), len(pooled)) == (1100, 110)
    table = ResultsTable(tmp_path / "results.parquet").read()
    at_once = ResultsTable(tmp_path / "pooled" / "results.parquet").read()
    auroc = at_once.set_index(["head", "budget"])["auroc"]
    expected = {"ViT-L/14 prompts": (0.952, 0.997), "ViT-B/32 prompts": (0.904, 0.989), "RN50 probe": (0.784, 0.964)}
    for head, ends in expected.items():
        assert (round(auroc[head, 15], 3), round(auroc[head, 1506], 3)) == ends
    panel = CurveDisplay.from_results(table, [("smid", "auroc")]).panels[0]
    assert panel.head == "10 methods"
    assert (panel.points["n_seeds"] == 10).all()
    assert (panel.points["high"] > panel.points["mean"]).all()
