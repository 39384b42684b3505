"""`guardtrain attack` on scenes, to its tables, files and figure; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from guardtrain.benchmarks.attacks.gradient import eight_bit, fgsm, pgd
from guardtrain.guards.guard import Guard
from guardtrain.scenes import SceneSource
from tests.benchmarks.attacks.guards import attacked_guard, fire_target
from tests.guards.toys import toy_guard
from tests.sources.animations import animation

OUT = Path("outputs/attack/scenes")
SMALL = ["samples=8", "attacks=[fgsm,pgd,jpeg]", "jpeg=[30]", "steps=10", "block=4", "device=cpu", "threads=1"]
DATA = ["data.test.counterfactual.n=24", "~data.test.in_domain", "point=balanced"]


@pytest.fixture
def scenes_guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked_guard(tmp_path_factory.getbasetemp())


def test_from_a_guard_to_robust_accuracy_with_files_and_figure(run, scenes_guard: Path) -> None:
    text = run("attack", f"guards=[{scenes_guard}]", *SMALL, *DATA)
    for part in (
        "Robust accuracy on 'counterfactual' · 8 images of attacked attacked",
        "as files          unrounded\n",
        "Pairs with both sides still right",
        "at most 2 of 255 levels",
    ):
        assert part in text
    table = pd.read_parquet(OUT / "attack.parquet")
    images = pd.read_parquet(OUT / "images.parquet")
    pd.testing.assert_frame_equal(
        pd.read_csv(OUT / "attack.csv")[["guard", "value", "n"]], table[["guard", "value", "n"]]
    )
    pgd = table[(table["attack"] == "pgd") & (table["unit"] == "image") & (table["pixels"] == "file")].iloc[0]
    assert pgd["value"] == images.loc[images["attack"] == "pgd", "right"].mean()
    assert f"{pgd['value']:.3f}".removeprefix("0") in text
    assert min(Image.open(OUT / "attack.png").size) > 300
    assert (OUT / "attack.pdf").read_bytes().startswith(b"%PDF")
    # again: nothing is attacked twice, and the files are the same
    before = (OUT / "images.parquet").read_bytes()
    parts = {path: path.stat().st_mtime_ns for path in (OUT / ".parts").glob("*.parquet")}
    run("attack", f"guards={scenes_guard}", *SMALL, *DATA)
    assert {path: path.stat().st_mtime_ns for path in (OUT / ".parts").glob("*.parquet")} == parts
    assert (OUT / "images.parquet").read_bytes() == before


def test_what_is_refused_is_named(run, scenes_guard: Path, tmp_path: Path) -> None:
    toy_guard(tmp_path / "toy")
    assert "its encoder (toy) is not one" in run("attack", "guards=[toy]", code=2)
    assert Guard.load("toy").name in run("attack", "guards=[toy]", code=2)
    assert "leaves images to people" in run("attack", f"guards=[{scenes_guard}]", "point=review", code=2)
    assert "no test set 'x'; there are: counterfactual, in_domain" in run(
        "attack", f"guards=[{scenes_guard}]", "tests=[x]", "point=strict", code=2
    )
    assert "name at least one guard" in run("attack", "guards=[]", code=2)
    for setting, message in (("attacks=[x]", "attacks has 'x'"), ("+epsilons=1", "Did you mean 'epsilon'?")):
        assert message in run("attack", f"guards=[{scenes_guard}]", setting, code=2)


def test_animations_are_attacked_by_their_first_frame_and_said(run, scenes_guard: Path) -> None:
    source = SceneSource("test", 16, seed=3)
    for i, label in enumerate(source.records().labels.tolist()):
        file = Path("photos", ("safe", "unsafe")[label], f"{i}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = source.image(i)
        file.write_bytes(animation("PNG", [picture, Image.new("RGB", picture.size)]))
    data = ["data=image_folder", "data.real.root=photos", "data.test.in_domain.fraction=0.5"]
    text = run("attack", f"guards=[{scenes_guard}]", *data, "attacks=[jpeg]", "jpeg=[30]", "point=balanced", "block=8")
    assert "in_domain: 8 animations are attacked by the first frame, of which a label is taken to be: " in text


@pytest.mark.data
def test_on_real_photographs_one_step_hurts_and_many_are_fatal(data_dir: Path, tmp_path: Path) -> None:
    """FGSM and PGD through MobileNetV2 on fires, judged on files."""
    target, pixels, labels = fire_target(data_dir, tmp_path / "guard", images=5)
    original = (pixels * 255).round()

    def right(x) -> float:
        files = eight_bit(x, original.byte(), 0.01).permute(0, 2, 3, 1).numpy()
        logits = target.logits([target.file_of(one) for one in files])
        return float(target.right(logits, labels.numpy()).mean())

    def settled(now, rows):
        levels = eight_bit(now, original.byte()[rows], 0.01).float() / 255
        return target.margins(levels, labels[rows]) < 0

    once = right(fgsm(target.margins, pixels, labels, 0.01).pixels)
    often = right(pgd(target.margins, pixels, labels, 0.01, steps=8, step_size=0.002, settled=settled).pixels)
    assert right(pixels) == 1
    assert often <= once < 1
    assert often <= 0.15
