"""A user's own files: the sources behind `embed`, `train` and `curve`, tried on rendered scenes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest

from guardtrain.cli import main
from guardtrain.embeddings import EmbeddingStore
from guardtrain.records import Records

GRID = ["head=linear", "grid.budgets=[16,32]", "grid.ratios=[0,0.5]", "grid.seeds=2"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["scenes", "pool=real", "n=120", "out=photos"]) == 0
        assert main(["scenes", "pool=pairs", "n=160", "out=edits", "masks=true"]) == 0
    return folder


@pytest.fixture
def files(run: Callable[..., str], rendered: Path) -> None:
    """Two pools of rendered scenes in the folder that `run` runs in, for the test to change as it likes."""
    shutil.copytree(rendered, ".", dirs_exist_ok=True)


def test_scenes_writes_images_records_masks_and_a_sheet(files) -> None:
    records = Records.from_table(pyarrow.csv.read_csv("edits/records.csv"))
    assert len(records) == 160
    for folder in ("images", "masks"):
        assert len(list(Path("edits", folder).glob("*.png"))) == 160
    assert Path("edits/contact_sheet.png").stat().st_size > 10_000


def test_manifests_to_curve(run, files) -> None:
    tables = ["data.real.path=photos/records.csv", "data.pairs.path=edits/records.csv"]
    text = run("curve", "data=manifest", *tables, *GRID, "plot.figures=[]")
    assert "12 of 12 runs trained" in text
    assert "AUROC on 'counterfactual'" in text
    # a preset's grid, of which something does not fit; one test set alone
    few = ["grid=small", "grid.seeds=1", "plot.figures=[]", "out=preset"]
    text = run("curve", "data=manifest", *tables, *few, "data.test=counterfactual")
    assert "left out, for 120 real images and 40 pairs are too few: budgets 256, 1024. The most at which" in text
    assert "6 of 6 runs trained" in text
    assert "on 'in_domain'" not in text
    line = re.search(r"all of it fits: (grid.budgets=\S+)", text)
    assert line and line[1] == "grid.budgets=[16,64,80]"
    refused = run("curve", "data=manifest", *tables, *few, "grid.budgets=[16,512]", code=2)
    assert "budget 512 at ratio 0 " in refused and "grid.budgets=[16,80]" in refused
    assert "no test set 'counterfactal'. Did you mean 'counterfactual'?" in run(
        "curve", "data=manifest", *tables, "data.test=[counterfactal]", code=2
    )


def test_real_images_alone_to_a_curve(run, files) -> None:
    table = "data.real.path=photos/records.csv"
    assert "Without pairs say data.pairs=null" in run("curve", "data=manifest", table, code=2)
    text = run("curve", "data=manifest", table, "data.pairs=null", "grid=small", "grid.seeds=2", "plot.figures=[]")
    assert "data.test.counterfactual is left out: it is held out of pairs, and there are none" in text
    assert "there are no pairs: the curve is of real images alone" in text
    assert "4 of 4 runs trained" in text
    refused = run("train", "data=manifest", table, "data.pairs=null", code=2)
    assert refused.splitlines()[-1].endswith("The most that fits: mixture.ratio=0 mixture.budget=84")


def test_embed_and_train_from_the_store(run, files) -> None:
    text = run("embed", "source=manifest", "source.path=photos/records.csv", "out=store")
    assert "120 embeddings" in text
    stored = EmbeddingStore.open("store").read()
    assert stored.matrix.shape == (120, 256)
    assert np.allclose(np.linalg.norm(stored.matrix, axis=1), 1, atol=1e-5)
    arguments = [
        "data=stores",
        "data.real.path=store",
        "data.pairs=null",
        "~data.test.counterfactual",
        "mixture={budget: 64, ratio: 0.0}",
    ]
    assert "in_domain" in run("train", *arguments, "encoder=demo", "guard=false")
    # the store says which encoder made it, and another is refused
    refusal = run("train", *arguments, "encoder=demo", "encoder.normalize=false", code=2)
    assert "normalize" in refusal


def test_image_folder_to_curve(run, files) -> None:
    table = Records.from_table(pyarrow.csv.read_csv("photos/records.csv"))
    for i, label in enumerate(table.labels):
        folder = Path("folder", "unsafe" if label else "safe", str(table.categories[i]))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("photos", table.table["image"][i].as_py()), folder)
    arguments = ["data=image_folder", "data.real.root=folder", "grid.ratios=[0]", "grid.budgets=[16]", "grid.seeds=2"]
    assert "2 of 2 runs trained" in run("curve", *arguments)


def test_plot_draws_other_panels_from_the_same_results(run, files) -> None:
    tables = ["data.real.path=photos/records.csv", "data.pairs.path=edits/records.csv"]
    run("curve", "data=manifest", *tables, *GRID, "plot.figures=[]")
    text = run(
        "plot",
        "results=outputs/curve/manifest",
        "out=figures",
        "plot.figures=[curve]",
        "plot.panels=[{test: counterfactual, metric: pair_ranking}]",
    )
    assert "Pairs ranked right on 'counterfactual'" in text
    assert "AUROC on" not in text
    assert Path("figures/curve.png").is_file()
    unknown = run("plot", "results=outputs/curve/manifest", "plot.panels=[{test: x, metric: auroc}]", code=2)
    assert "counterfactual, in_domain" in unknown


def test_a_broken_pair_and_a_missing_image_are_named(run, files) -> None:
    lines = Path("edits/records.csv").read_text().splitlines()
    Path("edits/broken.csv").write_text("\n".join([*lines[:3], *lines[4:]]))
    base = ["curve", "data=manifest", "data.real.path=photos/records.csv", *GRID]
    assert "exactly one safe and one unsafe" in run(*base, "data.pairs.path=edits/broken.csv", code=2)
    victim = next(Path("edits/images").glob("*.png"))
    victim.unlink()
    assert victim.name in run(*base, "data.pairs.path=edits/records.csv", code=2)
