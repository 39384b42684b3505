from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guardtrain.errors import GuardError
from guardtrain.guards.guard import Guard
from guardtrain.guards.hub import push, stage
from tests.guards.hub_server import COMMIT, hub
from tests.guards.toys import toy_guard, toy_images

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
