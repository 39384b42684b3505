"""Clusters and servers that run on this machine for as long as their tests do; `make engines` runs these tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL_DATA
from tests.commands.own_modules import OWN_HEAD, write_own_head
from tests.conftest import ROOT
from tests.engines.daemons import daemon, free_port, listens
from tests.engines.slurm import Slurm, slurm_on_this_machine

SWEEP = [*SMALL_DATA, "selection=fixed", "logger=none", "trainer.threads=1"]


OWN_SWEEP = [
    "train",
    "-m",
    "head.units=3,5",
    *OWN_HEAD,
    *SWEEP,
    "mixture.budget=64",
    "optimizer.steps=20",
    "guard=false",
]
OWN_SWEEP += ["hydra.sweep.subdir=${head.units}"]


class Guardtrain:
    """Runs commands as users do, each in a process of its own.

    Args:
        folder: that they run in.
        env: more of their environment.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder, self.env = folder, {**os.environ, **env}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command, running; what it prints comes through its `stdout`."""
        command = [sys.executable, "-m", "guardtrain.cli", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __call__(self, *arguments: str, code: int = 0, seconds: float = 300) -> str:
        """What the command prints; it must end with `code`, in time."""
        process = self.start(*arguments)
        try:
            text, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
        assert process.returncode == code, text
        return text


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="gt") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def slurm(short_folder: Path) -> Iterator[Slurm]:
    """A SLURM of one node that keeps no accounts of jobs."""
    folder = short_folder / "slurm"
    folder.mkdir()
    with slurm_on_this_machine(folder) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray_nodes(short_folder: Path) -> Iterator[str]:
    """The address of a Ray cluster of two nodes of one processor each."""
    if find_spec("ray") is None or find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("no Ray here, or no launcher for it: make engines installs both")
    address = short_folder / "address"
    command = [sys.executable, "-m", "tests.engines.ray_nodes", str(address)]
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with daemon(command, short_folder / "ray.log", ready=address.exists, env=env, seconds=600):
        yield address.read_text()


@pytest.fixture(scope="session")
def mlflow_server(short_folder: Path) -> Iterator[str]:
    """The address of an MLflow server with a database and a folder of artifacts."""
    program, port, folder = _server("mlflow"), free_port(), short_folder / "mlflow"
    folder.mkdir()
    command = [program, "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/runs.db", f"--artifacts-destination={folder}/artifacts"]
    with daemon(command, short_folder / "mlflow.log", ready=lambda: listens(port), seconds=180):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def s3_server(short_folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which `s3://` is a server on this machine."""
    if find_spec("s3fs") is None:
        pytest.skip("no s3fs here: make install")
    program, port = _server("moto_server"), free_port()
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    with daemon(
        [program, "-H", "127.0.0.1", "-p", str(port)], short_folder / "s3.log", ready=lambda: listens(port), seconds=180
    ):
        yield {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def _server(program: str) -> str:
    """A program of the servers' own environment, which `make engines` makes beside guardtrain's."""
    place = Path(os.environ.get("GUARDTRAIN_SERVERS", Path(sys.prefix) / "servers")) / "bin" / program
    if not place.is_file():
        pytest.skip(f"no {place} here: make engines installs it")
    return str(place)


def own_heads_alone(guardtrain: Guardtrain) -> tuple[dict[str, bytes], dict[str, list[dict[str, object]]]]:
    """Heads and results of a sweep over the README's own head, run in this folder and nowhere else; its files stay."""
    write_own_head(guardtrain.folder)
    text = guardtrain(*OWN_SWEEP, "out=own_alone")
    assert "2 done, 0 skipped, 0 failed" in text
    found = heads(guardtrain.folder / "own_alone"), rows(guardtrain.folder / "own_alone")
    assert sorted(found[0]) == sorted(found[1]) == ["3", "5"]
    return found


def rows(folder: Path, *left_out: str) -> dict[str, list[dict[str, object]]]:
    """The results of each job of a sweep, by its folder's name, without the seconds it took."""
    import pyarrow.parquet as pq

    found = {}
    for file in sorted(folder.glob("*/results.parquet")):
        table = pq.read_table(file).drop_columns(["seconds", *left_out])
        found[file.parent.name] = table.to_pylist()
    return found


def heads(folder: Path) -> dict[str, bytes]:
    """The head files of a sweep's jobs, by the jobs' folders' names."""
    return {file.parent.name: file.read_bytes() for file in sorted(folder.glob("*/head.safetensors"))}


def weights(guard: Path) -> dict[str, bytes]:
    """The numbers of a guard's model by their names; the file's own header has no order."""
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in sorted(load_file(guard / "model.safetensors").items())}


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but locks, by its path."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def lines_with(text: str, words: Sequence[str]) -> list[str]:
    """The lines in which all the words stand."""
    return [line for line in text.splitlines() if all(word in line for word in words)]
