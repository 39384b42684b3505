"""Disks that are full at some moment: a line says so, what is finished stays, and the same command goes on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardtrain.cli import main
from tests.commands.conftest import SMALL_DATA

pytestmark = pytest.mark.long
PLENTY = "64m"
FEW = [*SMALL_DATA, "selection=fixed", "logger=none", "trainer.threads=1"]
GRID = ["head=linear", "grid.budgets=[16]", "grid.ratios=[0]", "grid.seeds=2"]
MADE_ONCE = (".npy", ".npz", ".safetensors")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that gives a disk a size, and its folder: `disk("40k")`."""
    folder, mounted = tmp_path / "disk", False
    folder.mkdir()

    def of_size(size: str) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or (done := subprocess.run(command, capture_output=True)).returncode:
            pytest.skip(f"no disk can be mounted here: {'no mount' if not mounted else done.stderr.decode()}")
        mounted = True
        return folder

    yield of_size
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "mixture.budget=32", *FEW, "out=run"]) == 0
        assert main(["scenes", "n=16", "out=photos"]) == 0
    return folder


@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        pytest.param("36k", ["train", "mixture.budget=32", *FEW, "guard=false"], id="the results of a run"),
        pytest.param("80k", ["curve", *FEW, *GRID], id="the scores of a curve"),
        pytest.param("60k", ["embed", "source=scenes", "source.n=64", "shard_size=32"], id="a shard of a store"),
        pytest.param("24k", ["export", "run={guard}/run"], id="a guard"),
        pytest.param("4k", ["predict", "guard={guard}/run/guard", "{guard}/photos/records.csv"], id="a table"),
    ],
)
def test_the_same_command_goes_on_when_there_is_room(
    disk: Callable[[str], Path],
    guard: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    size: str,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(guard)
    folder = disk(size)
    out = folder / ("out.parquet" if arguments[0] == "predict" else "out")
    command = [*(argument.format(guard=guard) for argument in arguments), f"out={out}"]
    capsys.readouterr()
    assert main(command) == 2
    told = capsys.readouterr()
    said = [line for line in told.err.splitlines() if line.startswith("guardtrain")]
    assert said == told.err.splitlines()[-1:], told.err
    assert str(folder) in said[0]
    assert " free" in said[0]
    assert "Traceback" not in told.err + told.out
    assert not [path for path in folder.rglob("*.tmp*") if path.is_file()]
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in MADE_ONCE and path.is_file()}
    disk(PLENTY)
    assert main(command) == 0
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_job_of_a_sweep_says_so_and_the_sweep_goes_on(disk: Callable[[str], Path], run: Callable[..., str]) -> None:
    folder = disk("40k")
    sweep = ["train", "-m", "mixture.budget=16", *FEW, "guard=false", f"out={folder}/sweep"]
    text = run(*sweep, code=2)
    assert "could not be written to: no space left on its disk" in text
    assert str(folder) in text
    for word in ("Traceback", "bug in guardtrain", "a process died"):
        assert word not in text
    disk(PLENTY)
    assert " 0 failed" in run(*sweep)
