"""A guard's program from pixels against the guard itself: through onnxruntime, torch.export, and without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guardtrain.cli import main
from guardtrain.guards.described import DescribedGuard
from guardtrain.guards.guard import Guard
from guardtrain.guards.onnx_export import onnx_judge
from guardtrain.guards.pixel_program import PixelProgram
from guardtrain.guards.prediction_inputs import InputImage
from tests.guards.serving.small_guard import image_files, write_small_guard
from tests.sources.animations import animation


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    folder = tmp_path_factory.mktemp("whole") / "guard"
    return Guard.load(write_small_guard(folder, whole=True, program=True), device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Images of several formats, an animation, and what is none."""
    files = image_files(10)
    scenes = [Image.fromarray(np.full((64, 64, 3), level, dtype=np.uint8)) for level in (0, 90, 255)]
    paths = []
    for i, content in enumerate([*files, animation("GIF", scenes), b"", files[1][:200]]):
        path = tmp_path / f"{i:02d}.png"
        path.write_bytes(content)
        paths.append(str(path))
    return [*paths, str(tmp_path / "nowhere.png")]


def test_pixels_to_probabilities(whole: Guard) -> None:
    g = np.random.default_rng(1)
    images = [Image.fromarray(g.integers(0, 255, (50 + i, 70, 3), dtype=np.uint8)) for i in range(5)]
    pixels = np.stack([whole.encoder.preprocess(image).numpy() for image in images])
    expected = whole.predict(images)
    _, found, shares = onnx_judge(whole.path / "guard.onnx")(pixels)
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-4)
    np.testing.assert_allclose(shares, expected.category_probabilities, atol=1e-4)
    program = torch.export.load(whole.path / "guard.pt2").module()
    said = program(torch.from_numpy(pixels))[1].detach().numpy()
    np.testing.assert_allclose(said, expected.probabilities, atol=1e-4)
    assert [item["file"] for item in whole.about["agreement"]] == ["guard.onnx", "guard.pt2"]


@pytest.mark.parametrize(("point", "prior"), [("balanced", None), ("review", 0.02)])
@pytest.mark.parametrize("frames", [1, None])
def test_it_answers_as_the_guard_does(
    whole: Guard, photos: list[str], point: str, prior: float | None, frames: int | None
) -> None:
    described = DescribedGuard.read(whole.path).at(prior)
    program, whole = PixelProgram(described), replace(whole, calibration=described.calibration)
    steps: list[int] = []
    images = [InputImage(path, path) for path in photos]
    found = program.predict(images, point=point, frames=frames, max_pixels=10**6, advance=steps.append)
    wanted = whole.predict(photos, point=point, frames="first" if frames else "all")
    assert sum(steps) == len(photos)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-4)
    np.testing.assert_allclose(found.category_probabilities, wanted.category_probabilities, atol=1e-4)
    assert [error is None for error in found.errors] == [error is None for error in wanted.errors]
    assert (found.decision, found.category, found.seen) == (wanted.decision, wanted.category, wanted.seen)
    assert len(set(found.decision)) >= 3  # safe, unsafe or review, and None


def test_the_cards_examples_run_as_they_stand(whole: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the guard's folder, with guardtrain and without, on one photograph."""
    folder = Path(shutil.copytree(whole.path, tmp_path / "guard"))
    pixels = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    blocks = [block.partition("```")[0] for block in (folder / "README.md").read_text().split("```python\n")[1:]]
    with_guardtrain, alone = blocks
    assert "guardtrain" in with_guardtrain and "guardtrain" not in alone and "torch" not in alone
    monkeypatch.chdir(folder)
    names, bare = dict[str, Any](), dict[str, Any]()
    exec(with_guardtrain, names)
    exec(alone, bare)
    found = names["found"]
    np.testing.assert_allclose(bare["probability"], found.probabilities, atol=1e-4)
    assert bare["unsafe"].tolist() == found.flagged.tolist()
    named = found.category_names[found.category_probabilities[0].argmax()]
    assert bare["category"] == [named]


def test_the_command_answers_without_torch(whole: Guard, photos: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And the answers are those of torch, to the digits that are shown; pyarrow is for tables alone."""
    del photos[-1]  # what is named and not there is refused before anything is judged
    code = "import sys, guardtrain.cli as c; c.main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, "predict", *photos]
    done = subprocess.run([*command, f"guard={whole.path}"], capture_output=True, text=True, check=True)
    *lines, modules = done.stdout.splitlines()
    assert {"torch", "pyarrow", "pandas", "sklearn", "guardtrain.config"}.isdisjoint(modules.split())
    assert "onnxruntime" in modules.split()
    assert main(["predict", *photos, f"guard={whole.path}", "checkpoint=pkg://guardtrain/scenes/demo_encoder"]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_a_program_that_cannot_be_run_gives_way(
    whole: Guard, photos: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    def refused(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no such operator\nat all")

    assert main(["predict", photos[0], f"guard={whole.path}", "out=-"]) == 0
    wanted = capsys.readouterr()
    monkeypatch.setattr(onnxruntime, "InferenceSession", refused)
    assert main(["predict", photos[0], f"guard={whole.path}", "out=-"]) == 0
    found = capsys.readouterr()
    assert "cannot be run by this onnxruntime: no such operator: it is judged through torch" in found.err
    assert found.out[:40] == wanted.out[:40]


def test_no_text_tower_and_no_pickle_in_the_programs(whole: Guard) -> None:
    with zipfile.ZipFile(whole.path / "guard.pt2") as archive:
        assert not any(archive.read(name)[:1] == b"\x80" for name in archive.namelist() if not name.count("weight_"))
        config = archive.read(next(n for n in archive.namelist() if n.endswith("weights_config.json"))).decode()
        text = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("model.json"))
    assert "token_embedding" not in config
    assert os.fsencode(Path(torch.__file__).parent) not in text
