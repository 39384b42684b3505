from __future__ import annotations

import json
import logging
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from guardtrain.errors import GuardError
from guardtrain.guards.directory import CONFIG, config_digest
from guardtrain.guards.guard import Guard
from guardtrain.guards.settings import GuardSettings
from tests.guards.toys import toy_guard, toy_settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_guard(tmp_path_factory.mktemp("made") / "guard", neighbours=True).guard.path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A guard of this test's own."""
    return Path(shutil.copytree(made, tmp_path / "guard"))


def _rewrite(folder: Path, **changed) -> None:
    """Change the config and sign it again, as somebody who means it would."""
    config = json.loads((folder / CONFIG).read_text()) | changed
    config["sha256"] = config_digest(config)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["model.safetensors", "neighbours.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "longer"])
def test_damaged_files_are_refused(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        words = f"lacks {name}"
    elif damage == "truncated":
        path.write_bytes(content[:-8])
        words = f"{name} is not the file .* {len(content) - 8:,} bytes, not {len(content):,}"
    elif damage == "longer":
        path.write_bytes(content + b"\0")
        words = f"{name} is not the file"
    else:
        content[-1] ^= 1
        path.write_bytes(content)
        words = f"{name} is not the file .* sha256"
    with pytest.raises(GuardError, match=words) as error:
        Guard.load(folder)
    assert "Export the guard again" in str(error.value)


def test_a_changed_threshold_is_noticed(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["operating_points"]["points"][0]["threshold"] += 1e-9
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(GuardError, match="was changed since"):
        Guard.load(folder)


def test_an_edited_card_is_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "README.md").write_text("# Mine\n")
    with caplog.at_level(logging.WARNING):
        Guard.load(folder)
    assert "was edited" in caplog.text


def test_a_newer_format_says_update(folder: Path) -> None:
    _rewrite(folder, format=3)
    with pytest.raises(GuardError, match=r"format 3; this guardtrain reads formats up to 2\. Update"):
        Guard.load(folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"format": "one"}, "no format number"),
        ({"files": {}}, "names no model.safetensors"),
        ({"files": {"model.safetensors": {}}}, "says no size"),
        ({"head": {"_target_": "os.system"}}, r"os\.system, which is not part of guardtrain.*trusted_heads"),
        ({"head": {"_target_": "guardtrain.heads.os.system"}}, "does not fit the head"),
        ({"head": {"_target_": "guardtrain.heads.bank.batched_affine"}}, "is no head definition"),
        ({"head": {"_target_": "guardtrain.heads.anchors.Path"}}, "is no head definition"),
        ({"head": {"_target_": "guardtrain.heads.HeadBank", "heads": 1, "dim": 16}}, "is no head definition"),
        ({"head": {"_target_": "guardtrain.benchmarks.concepts.Concepts"}}, "not part of guardtrain"),
        ({"head": {"_target_": "guardtrain.heads.LinearHead", "name": "${oc.env:HOME}"}}, "filled in from outside"),
        ({"head": {"_target_": "guardtrain.heads.GDAHead", "shrinkage": 7}}, "does not fit .*shrinkage"),
        ({"dim": 8}, "does not fit the head"),
        ({"operating_points": {"points": []}}, "config cannot be used"),
        ({"calibration": None}, "config cannot be used"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_configs_that_make_no_guard(folder: Path, changed: dict, words: str) -> None:
    _rewrite(folder, **changed)
    with pytest.raises(GuardError, match=words):
        Guard.load(folder)


def test_a_file_outside_cannot_be_named(folder: Path) -> None:
    files = json.loads((folder / CONFIG).read_text())["files"]
    (folder.parent / "outside").write_bytes(b"")
    _rewrite(folder, files=files | {"../outside": {"bytes": 0, "sha256": ""}})
    with pytest.raises(GuardError, match="outside the directory"):
        Guard.load(folder)


def test_an_encoder_whose_fields_were_changed(folder: Path) -> None:
    encoder = json.loads((folder / CONFIG).read_text())["encoder"]
    _rewrite(folder, encoder=encoder | {"normalize": False})
    with pytest.raises(GuardError, match="fingerprint"):
        Guard.load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "\ud800"])
def test_a_config_that_is_none(folder: Path, content: str) -> None:
    (folder / CONFIG).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(GuardError, match="damaged"):
        Guard.load(folder)


def test_what_is_no_guard_at_all(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="holds no config"):
        Guard.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(GuardError, match="is a file"):
        Guard.load(tmp_path / "file")
    with pytest.raises(GuardError, match="There is no directory"):
        Guard.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["model.pkl", "pytorch_model.bin", "x.pt", "x.PTH", "last.ckpt", "a/b.joblib", "x.npy"]
)
def test_pickles_by_name(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(GuardError, match="is a pickle"):
        Guard.load(folder)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_by_content(folder: Path, protocol: int) -> None:
    (folder / "notes.txt").write_bytes(pickle.dumps({"a": [1.0]}, protocol=protocol))
    with pytest.raises(GuardError, match=r"notes\.txt is a pickle"):
        Guard.load(folder)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_safetensors_are_not_taken_for_pickles(folder: Path, length: int) -> None:
    """The length of their header comes first, and may look like the start of a pickle."""
    save_file({"x": np.zeros(2)}, folder / "more.safetensors", metadata={"pad": "x"})
    short = int.from_bytes((folder / "more.safetensors").read_bytes()[:8], "little")
    save_file({"x": np.zeros(2)}, folder / "more.safetensors", metadata={"pad": "x" * (length - short)})
    assert (folder / "more.safetensors").read_bytes()[:2] == length.to_bytes(2, "little")
    Guard.load(folder)


def test_an_archive_with_a_pickle(folder: Path) -> None:
    with zipfile.ZipFile(folder / "weights.onnx", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(GuardError, match=r"weights\.onnx is a pickle"):
        Guard.load(folder)


def test_links_out_of_the_directory(folder: Path) -> None:
    weights = folder / "model.safetensors"
    outside = folder.parent / "weights"
    weights.rename(outside)
    weights.symlink_to(outside)
    with pytest.raises(GuardError, match="outside the guard's directory"):
        Guard.load(folder)


def test_links_inside_are_fine(folder: Path) -> None:
    (folder / "LATEST").symlink_to("model.safetensors")
    Guard.load(folder)


def test_other_files_of_a_repository_are_left_alone(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.onnx filter=lfs\n")
    Guard.load(folder)


def test_a_guard_is_replaced_whole_and_nothing_else_is(folder: Path) -> None:
    old = (folder / CONFIG).read_text()
    toy_guard(folder, name="second")
    assert Guard.load(folder).name == "second"
    assert (folder / CONFIG).read_text() != old
    assert not (folder / "neighbours.safetensors").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["guard"]
    photos = folder.parent / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").touch()
    with pytest.raises(GuardError, match="is no guard: it is not overwritten"):
        toy_guard(photos)
    assert [p.name for p in photos.iterdir()] == ["holiday.jpg"]


def test_an_export_that_fails_leaves_what_was_there(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    settings: GuardSettings = toy_settings(whole=True)
    assert settings.whole
    with pytest.raises(GuardError, match="cannot be loaded, only its embeddings"):
        toy_guard(folder, whole=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["guard"]


def test_an_export_that_was_killed_while_it_replaced_a_guard_lost_nothing(folder: Path) -> None:
    folder.rename(folder.parent / ".guard.1.old.tmp")
    (folder.parent / ".guard.1.tmp").mkdir()
    with pytest.raises(GuardError, match="only its embeddings"):
        toy_guard(folder, whole=True)
    assert Guard.load(folder).about["training"]["run"] == "abc"
    assert [p.name for p in folder.parent.iterdir()] == ["guard"]


def test_every_file_can_be_read_by_others(folder: Path) -> None:
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1
