from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from guardtrain.encoders.resolve import resolve_spec
from guardtrain.encoders.resolved import local_path
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import GuardError
from guardtrain.files import file_sha256
from guardtrain.guards.encoder_weights import copy_weights, only_here
from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.hub import push, stage
from guardtrain.guards.validation import Validation
from guardtrain.heads import LinearHead
from tests.guards.hub_server import COMMIT, hub
from tests.guards.toys import toy_guard, toy_images, toy_run, toy_settings, toy_validation

NAME = "org/toy-guard"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return toy_guard(tmp_path_factory.mktemp("hub") / "guard", neighbours=True).guard


def _cached(guard: Guard, cache: Path) -> Path:
    """The guard as the hub's client caches it: files in blobs, links to them in a snapshot."""
    repository = cache / f"models--{NAME.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(guard.path.iterdir())):
        shutil.copyfile(file, repository / "blobs" / f"{i:040d}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{i:040d}")
    return snapshot


def test_a_cached_guard_loads_without_the_network(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _cached(guard, tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    x, _ = toy_images(20)
    for found in (Guard.load(NAME), Guard.load(NAME, revision=COMMIT), Guard.load(snapshot)):
        np.testing.assert_array_equal(found.probabilities(x), guard.probabilities(x))
        assert found.path == snapshot
    assert Guard.load(NAME).predict(x[:1], explain=1).neighbours is not None
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(GuardError, match="outside the guard's directory"):
        Guard.load(NAME)


def test_a_guard_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(GuardError, match=r"no directory org/nothing here.*hf download org/nothing") as error:
        Guard.load("org/nothing")
    assert str(tmp_path) in str(error.value)
    with pytest.raises(GuardError, match="no repository of the hub"):
        Guard.load("not a name")
    with pytest.raises(GuardError, match="no revision 'v2'"):
        Guard.load(tmp_path, revision="v2")


def test_push_offline_and_push_of_what_is_no_guard(guard: Guard, tmp_path: Path) -> None:
    with pytest.raises(GuardError, match=r"could not be pushed to org/x: .*\n.*HF_HUB_OFFLINE"):
        push(guard.path, "org/x")
    with pytest.raises(GuardError, match="'guard' is no repository"):
        push(guard.path, "guard")
    with pytest.raises(GuardError, match="holds no config"):
        push(tmp_path, "org/x")
    shutil.copytree(guard.path, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"")
    with pytest.raises(GuardError, match="is not the file that was exported"):
        push(tmp_path / "damaged", "org/x")


def test_what_is_staged_has_no_folder_of_this_machine(guard: Guard, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(guard.path, tmp_path / "guard"))
    (folder / "notes.txt").write_text("mine")
    config = dict(guard.about)
    config["encoder"] = {**config["encoder"], "location": "/home/somebody/weights/model.safetensors"}
    staged = stage(folder, config, tmp_path / "staged")
    assert sorted(p.name for p in staged.iterdir()) == sorted(p.name for p in guard.path.iterdir())
    found = Guard.load(staged)
    assert found.about["encoder"]["location"] == "model.safetensors"
    assert found.spec.fingerprint == guard.spec.fingerprint
    assert b"/home/somebody" not in (staged / "config.json").read_bytes()


def _on_a_copy_of_the_demo_encoder(folder: Path, single: bool = False) -> Guard:
    """A guard whose encoder is a file of the user's: open_clip's folder, or weights alone with a model's name."""
    weights = folder / "mine"
    shutil.copytree(local_path("pkg://guardtrain/scenes/demo_encoder"), weights)
    spec = resolve_spec(EncoderSettings(name="mine", checkpoint=str(weights)))
    if single:
        save_file({"weight": torch.zeros(2)}, weights / "vit.safetensors")
        timm = {"family": "timm", "model": "vit_tiny_patch16_224", "checkpoint": str(weights / "vit.safetensors")}
        spec = resolve_spec(EncoderSettings(name="mine", **timm))
    bank = LinearHead().bank(1, 256)
    with torch.no_grad():
        bank.weight.normal_(generator=torch.Generator().manual_seed(0)).mul_(5)
    g = np.random.default_rng(0)
    x = g.normal(size=(200, 256)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = (x @ bank.weight[0, :, 0].detach().numpy() > 0).astype(int)
    groups, none = np.array([f"g{i}" for i in range(200)]), np.full(200, None, dtype=object)
    run = replace(toy_run(bank.eval()), spec=spec, neighbours=None)
    return export_guard(folder / "guard", run, Validation(x, y, groups, none, "drawn"), toy_settings()).guard


def test_an_encoder_that_nobody_else_has_is_pushed_with_the_guard_or_the_guard_is_not(tmp_path: Path) -> None:
    guard = _on_a_copy_of_the_demo_encoder(tmp_path / "here")
    image = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(image)
    wanted = guard.predict(str(image)).probabilities
    with pytest.raises(GuardError, match=r"its encoder \(mine\) is a file of this machine") as refused:
        push(guard.path, NAME, revision="a b")
    lines = [shlex.split(line) for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert lines == [
        ["guardtrain", "push", f"guard={guard.path}", f"repo={NAME}", 'revision="a b"', f"weights={which}"]
        for which in ("true", "false")
    ]
    (guard.path.parent / "head.json").write_text("{}")  # as beside the guard of a run
    with pytest.raises(GuardError, match=rf"guardtrain export run=\S+here out={guard.path} whole=true\n"):
        push(guard.path, NAME)
    with hub(tmp_path / "hub") as (address, _):
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path)}
        settings |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "guardtrain.cli", *lines[0][1:4], lines[0][-1]]
        ran = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
    shutil.rmtree(tmp_path / "here")
    pulled = Guard.load(tmp_path / "hub" / NAME)
    np.testing.assert_allclose(pulled.predict(str(image)).probabilities, wanted, atol=1e-6)
    assert pulled.spec.fingerprint == guard.spec.fingerprint
    # what is pulled can be pushed on, and what is made of it finds the weights
    folder = stage(pulled.path, dict(pulled.about), tmp_path / "again")
    assert Guard.load(folder).spec.location == str(folder / "encoder")


def test_weights_that_are_a_file_lie_in_the_guard_as_a_file_and_others_are_refused(tmp_path: Path) -> None:
    guard = _on_a_copy_of_the_demo_encoder(tmp_path / "here", single=True)
    staged = stage(guard.path, dict(guard.about), tmp_path / "staged", (guard.spec, None))
    assert Guard.load(staged).spec.location == str(staged / "encoder" / "vit.safetensors")
    weights = tmp_path / "here" / "mine" / "vit.safetensors"
    moved = weights.rename(tmp_path / "vit.safetensors")
    with pytest.raises(GuardError, match=r"there is no file or folder .*\n  Say where they lie: checkpoint=PATH"):
        push(guard.path, NAME, weights=True)
    stage(guard.path, dict(guard.about), tmp_path / "found", (guard.spec, str(moved)))
    save_file({"weight": torch.ones(2)}, moved)
    with pytest.raises(GuardError, match=r"differ in weights_sha256"):
        push(guard.path, NAME, weights=True, checkpoint=str(moved))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "vit.pth")
    pickled = replace(guard.spec, weights_sha256=file_sha256(tmp_path / "vit.pth"))
    with pytest.raises(GuardError, match="may hold a pickle, and guards hold none"):
        copy_weights(pickled, tmp_path, str(tmp_path / "vit.pth"))


def test_others_are_told_what_they_need_besides(tmp_path: Path) -> None:
    """Offline the hub refuses in the end; whether the guard was refused before shows in what is said."""
    said: list[str] = []
    guard = _on_a_copy_of_the_demo_encoder(tmp_path / "here")
    for location in ("pkg://guardtrain/scenes/demo_encoder", str(tmp_path / "here" / "mine")):
        spec = replace(guard.spec, location=location)
        assert only_here(spec) == (not location.startswith("pkg:"))
    assert not only_here(resolve_spec(EncoderSettings(model="ViT-B-32", pretrained="openai")))
    with pytest.raises(GuardError, match="could not be pushed"):
        push(guard.path, NAME, weights=False, say=said.append)
    assert f"others need the encoder's weights with the sha256 {guard.spec.weights_sha256}" in said[0]
    definition = {"_target_": "tests.guards.test_hub.OwnHead"}
    own = export_guard(tmp_path / "own", toy_run(definition=definition), toy_validation(), toy_settings()).guard
    with pytest.raises(GuardError, match="could not be pushed"):
        push(own.path, NAME, say=said.append)
    assert "its head tests.guards.test_hub.OwnHead is no part of guardtrain: others need that module" in said[2]


class OwnHead(LinearHead):
    """A head of a user's own."""


def test_push_and_pull_through_the_hubs_own_client(guard: Guard, tmp_path: Path) -> None:
    """In processes of their own: the client reads its settings when it is imported."""
    x, _ = toy_images(20)
    np.save(tmp_path / "x.npy", x)
    pull = (
        "import json, sys, numpy\nfrom guardtrain.guards.guard import Guard\n"
        "guard = Guard.load(sys.argv[1])\n"
        "print(json.dumps([str(guard.path), guard.probabilities(numpy.load(sys.argv[2])).tolist()]))"
    )
    with hub(tmp_path / "hub") as (address, created):
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path)}
        settings |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}

        def run(*command: str) -> str:
            ran = subprocess.run(
                [sys.executable, *command], env=os.environ | settings, capture_output=True, text=True, timeout=120
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        said = run("-m", "guardtrain.cli", "push", f"guard={guard.path}", f"repo={NAME}")
        assert f"{address}/{NAME}/commit/{COMMIT}" in said
        folder, probabilities = json.loads(run("-c", pull, NAME, str(tmp_path / "x.npy")))
    assert created[0].get("visibility") == "private" or created[0].get("private") is True
    repository = tmp_path / "hub" / NAME
    assert {p.name for p in repository.iterdir()} == {p.name for p in guard.path.iterdir()}
    assert Path(folder).is_relative_to(tmp_path / "cache")
    assert probabilities == guard.probabilities(x).tolist()
    np.testing.assert_array_equal(Guard.load(repository).probabilities(x), guard.probabilities(x))
