"""Ray's stores are the local ones byte for byte, whatever dies on the way; errors are as plain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from guardtrain.commands.ray_jobs import connect
from guardtrain.embeddings import EmbeddingStore, ray_engine
from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.ray_engine import RayEngine
from guardtrain.encoders import EncoderSettings
from guardtrain.errors import EncoderError, EngineError, StoreError
from guardtrain.installing import install_line
from guardtrain.own_code import import_target, make_importable
from guardtrain.scenes import SceneSource
from tests.embeddings.fake_encoder import SPEC, BatchedPictures, EncodedPictures, FakeEncoder, Pictures
from tests.embeddings.test_extraction import contents

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(find_spec("ray") is None, reason=f"Ray is not installed: {install_line('ray')}"),
]
N, SHARD = 43, 5
DAMAGED = {3: b"not a picture", 4: b"", 17: b"\x89PNG\r\n\x1a\n"}
DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    """Two actors of a Ray that all tests share, as a program that has started Ray itself."""
    ray = ray_engine._ray()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield RayEngine(actors=2)
    ray.shutdown()


@pytest.fixture
def one(engine: RayEngine) -> RayEngine:
    """One actor, which is there sooner."""
    return replace(engine, actors=1)


def run(source: Any, folder: Path, **options: Any) -> EmbeddingStore:
    arguments: dict[str, Any] = {"shard_size": SHARD, "progress": False, "load": lambda _: FakeEncoder()} | options
    return extract(source, SPEC, folder, **arguments)


class Deadly:
    """Told of each record before it is given: kills the process it is in, once, or at every try."""

    def __init__(self, marker: Path, row: int, always: bool = False) -> None:
        self.marker, self.row, self.always = marker, row, always

    def __call__(self, i: int) -> None:
        if i == self.row and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_stores_are_equal_byte_for_byte_though_an_actor_dies(
    engine: RayEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_WAIT_SECONDS", 600.0)
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "local")
    deadly = Deadly(tmp_path / "killed", 22)
    capfd.readouterr()
    run(EncodedPictures(N, deadly, 0.02, DAMAGED), tmp_path / "ray", engine=engine)
    assert (tmp_path / "killed").exists()
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert "quarantine.parquet" in contents(tmp_path / "ray")
    said = "".join(capfd.readouterr()).splitlines()
    assert [line for line in said if "(raylet)" not in line] == []  # Ray itself says, sooner or later, who died


def test_a_shard_that_kills_every_actor_is_named(
    one: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "DEATHS_A_SHARD", 1)
    deadly = Deadly(tmp_path / "killed", 22, always=True)
    with pytest.raises(EngineError, match=r"2 of Ray's actors died at shard 4: too little memory"):
        run(Pictures(N, deadly), tmp_path / "store", engine=one)
    with pytest.raises(StoreError, match="is not complete"):
        EmbeddingStore.open(tmp_path / "store")
    run(Pictures(N), tmp_path / "store")  # what is left, here
    run(Pictures(N), tmp_path / "local")
    assert contents(tmp_path / "store") == contents(tmp_path / "local")


def test_begun_here_and_ended_on_ray_and_tried_again_there(one: RayEngine, tmp_path: Path) -> None:
    def at(i: int) -> None:
        if i == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Pictures(N, at), tmp_path / "store", workers=1)
    run(Pictures(N), tmp_path / "store", engine=one, shard_size=4)
    run(Pictures(N), tmp_path / "local")
    assert contents(tmp_path / "store") == contents(tmp_path / "local")
    run(EncodedPictures(N, damaged=DAMAGED), tmp_path / "mended", storage="float16")
    run(EncodedPictures(N, damaged={4: b""}), tmp_path / "mended", engine=one, storage="float16", retry=True)
    run(EncodedPictures(N, damaged={4: b""}), tmp_path / "new", storage="float16")
    assert contents(tmp_path / "mended") == contents(tmp_path / "new")


def test_what_an_actor_raises_is_raised_here(one: RayEngine, tmp_path: Path) -> None:
    def no_encoder(_: Any) -> Any:
        raise EncoderError("there are no weights")

    with pytest.raises(EncoderError, match=r"^there are no weights$") as caught:
        run(Pictures(N), tmp_path / "a", engine=one, load=no_encoder)
    assert caught.value.__cause__ is None

    class Wrong(BatchedPictures):
        def images(self, indices: Any) -> np.ndarray:
            raise ZeroDivisionError("a bug of the source's")

    with pytest.raises(ZeroDivisionError, match="a bug of the source's") as bug:
        run(Wrong(N), tmp_path / "c", engine=one)
    assert "in images" in "".join(bug.value.__notes__)  # where it was


def test_a_source_that_cannot_be_sent_is_named(one: RayEngine, tmp_path: Path) -> None:
    import threading

    source = Pictures(N)
    source.at = threading.Lock()
    with pytest.raises(EngineError, match=r"The source Pictures cannot be sent to Ray's actors: .*lock"):
        run(source, tmp_path, engine=one)


def test_a_source_of_the_users_own_goes_along_to_the_actors(tmp_path: Path) -> None:
    """Its file lies in the folder that the command runs in, which other machines need not have."""
    import ray

    (tmp_path / "own_ray_source.py").write_text("class Ours:\n    def __init__(self, n):\n        self.n = n\n")
    make_importable([tmp_path])
    source = import_target("own_ray_source.Ours")(7)
    ray_engine._send_whole(ray)
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).n)"
    sent = ray.cloudpickle.dumps(source)
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, cwd="/")
    assert done.stdout == b"7\n", done.stderr.decode()


def test_an_actor_too_large_for_this_machine(engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(
        EngineError,
        match=r"No machine of Ray has room for an actor of 1 processors and 1 GPUs; the most is 2 and 0\. Set",
    ):
        run(Pictures(N), tmp_path, engine=RayEngine(gpus_per_actor=1))


def test_jobs_that_no_machine_has_room_for_are_told_of(engine: RayEngine) -> None:
    """A cluster may grow, so they wait; this machine does not."""
    said: list[str] = []
    for asked, line in (
        ({"num_cpus": 4}, "No machine of Ray has room for a job of 4 processors and 0 GPUs; the most is 2 and 0."),
        ({"num_cpus": None, "num_gpus": 1}, "No machine of Ray has room for a job of 1 processors and 1 GPUs"),
        ({"num_cpus": 2}, None),
        ({"num_cpus": 0}, None),
    ):
        said.clear()
        connect(OmegaConf.create({"init": {"address": "auto"}, "remote": asked}), said.append)
        assert [one.startswith(line) and "Jobs wait" in one for one in said] == [True] * (line is not None)
        if line is not None:
            with pytest.raises(EngineError, match="No machine of Ray has room for a job"):
                connect(OmegaConf.create({"init": {}, "remote": asked}), said.append)


def test_progress_of_shards_under_way(one: RayEngine) -> None:
    from guardtrain.embeddings.worker import Job

    source, steps = EncodedPictures(20, delay=0.1), []
    with one.crew(Job(source, source.records(), SPEC, lambda _: FakeEncoder(), workers=1)) as crew:  # type: ignore[arg-type]
        crew.settle("float32")
        made = sorted(number for number, _, _ in crew.embed({3: range(10), 5: range(10, 20)}, steps.append))
    assert made == [3, 5]
    assert sum(steps) == 20
    assert len(steps) >= 2


def test_the_command_killed_and_run_again(tmp_path: Path) -> None:
    """A Ray of the command's own and a real encoder: kill -9 leaves shards that equal those made here."""
    command = [sys.executable, "-m", "guardtrain.cli", "embed", "source.n=1500", "shard_size=25", "engine=ray"]
    folder = tmp_path / "ray"
    process = subprocess.Popen([*command, f"out={folder}"], stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(4800):
            if len(list(folder.glob("metadata/*.parquet"))) >= 2 or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, "it was over before it could be killed"
    finally:
        process.kill()
        said = process.communicate()[1]
    told = [line for line in said.splitlines() if not line.startswith("Waiting for Ray")]  # on a slow machine
    assert told == ["Embedding images with demo: 1,500 images"], "nothing of Ray's own"
    with pytest.raises(StoreError, match="is not complete"):
        EmbeddingStore.open(folder)
    source = SceneSource("test", 1500)
    for place in (folder, tmp_path / "local"):
        extract(source, DEMO, place, shard_size=25, progress=False)
    assert contents(folder) == contents(tmp_path / "local")
