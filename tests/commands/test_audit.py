"""`guardtrain audit` from images, and on real pairs, to its tables and files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from guardtrain.scenes import SceneSource
from tests.commands.conftest import SMALL_DATA

OUT = Path("outputs/audit/scenes")
AUDIT = [
    "audit",
    *(part.replace("400", "240") for part in SMALL_DATA),
    "permutations=2",
    "replicates=200",
    "attribute=context",
]


def test_an_audit_prints_tables_and_keeps_all_of_it_and_a_seed_gives_one_file(run) -> None:
    text = run(*AUDIT)
    for part in (
        "Audit of 'scenes'",
        "The label, told without looking at the image",
        "the images are drawn: there are no files to look at",
        "Labels that readers contradict",
        "By 'context'",
        "Within one label",
        "cannot be tested: all 240 are unedited",
        "What this means",
    ):
        assert part in text
    whole = json.loads((OUT / "audit.json").read_text())
    assert all(sentence.split(".")[0][:40] in text for sentence in whole["findings"])
    edited = next(q for q in whole["questions"] if (q["name"], q["label"]) == ("edited", 0))
    with (OUT / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(
        r
        for r in rows
        if (r["property"], r["label"], r["measure"], r["section"]) == ("edited", "safe", "auroc", "readout")
    )
    assert float(row["value"]) == edited["readout"]["auroc"]
    assert f"{edited['readout']['auroc']:.3f}".lstrip("0") in text
    listed = sum(len(check["images"]) + 2 * len(check["pairs"]) for check in whole["checks"])
    with (OUT / "suspects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == listed > 0
    # the same seed gives the same file
    first = (OUT / "audit.json").read_bytes()
    run(*AUDIT)
    assert (OUT / "audit.json").read_bytes() == first
    run(*AUDIT, "seed=1")
    assert (OUT / "audit.json").read_bytes() != first


def test_a_class_saved_as_png_is_a_stop_sign(run, tmp_path: Path) -> None:
    source = SceneSource(pool="real", n=160, seed=3)
    records = source.records()
    folder = tmp_path / "photos"
    for i, label in enumerate(records.labels):
        file = folder / ("unsafe" if label else "safe") / f"{i:03}.{'png' if label else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        source.image(i).save(file)
    overrides = ["data=image_folder", f"data.real.root={folder}", "data.pairs=null", *AUDIT[-3:]]
    text = " ".join(run("audit", *overrides, "encoder=demo", "out=out").split())
    assert "STOP: on the real pool the file format alone tells the label: AUROC 1.0" in text
    assert "STOP: on test set 'in_domain' the file format alone tells the label" in text
    assert "STOP PNG: 100 % of unsafe, 0 % of safe" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [("folds=1", "folds is 1"), ("duplicate_cosine=2", "duplicate_cosine is 2"), ("+fold=3", "Did you mean 'folds'?")],
)
def test_wrong_settings_are_named(run, override: str, message: str) -> None:
    assert message in run("audit", override, code=2)


@pytest.mark.data
def test_masks_give_the_editor_away(run, data_dir: Path) -> None:
    """Every unsafe pair image is pasted, also in the test set: nothing there tells a mask from a paste."""
    text = run("audit", "data=masks", "encoder=precomputed", f"data_dir={data_dir}", "permutations=2")
    assert "'edited' is readable at AUROC .99" in text
    assert "On test set 'counterfactual' edited means unsafe (Cramér's V 1.0)" in text
    assert "no test set here is without edits" in " ".join(text.split())
