"""The README's commands are run as they stand, in its order, in one empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONSOLE = re.compile(r"```console\n(.*?)```", flags=re.S)
COMMANDS = [
    line.removeprefix("$ ")
    for block in CONSOLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    for line in block.splitlines()
    if line.startswith("$ ")
]


def _shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300
    )


def test_guardtrain_commands_run_as_written(tmp_path: Path) -> None:
    ours = [command for command in COMMANDS if command.startswith("guardtrain ")]
    assert len(ours) >= 8
    # `guardtrain plot` is given what `make curve` leaves behind
    for command in ["guardtrain curve grid=small", *ours]:
        done = _shell(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if command == "guardtrain curve grid=small":
            assert "Data efficiency, AUROC on 'counterfactual'" in done.stdout
    for made in ("outputs/curve/scenes/curve.png", "figures/curve.svg", "stores/photos/encoder.json"):
        assert (tmp_path / made).is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_commands_run(tmp_path: Path) -> None:
    assert [command for command in COMMANDS if command.startswith("make")] == ["make curve", "make test"]
    venv = Path(sys.prefix)
    if not (venv / ".installed").is_file():
        pytest.skip("this environment was not made by make install")
    # the same targets with less work: a small grid, and the collection instead of the tests we are in
    curve = _shell(f"make curve VENV={venv} ARGS='grid=small out={tmp_path}/out'", ROOT)
    assert curve.returncode == 0, curve.stderr
    assert (tmp_path / "out" / "curve.png").is_file()
    collected = _shell(f"make test VENV={venv} ARGS='--collect-only -p no:cacheprovider'", ROOT)
    assert collected.returncode == 0, collected.stdout + collected.stderr


def test_the_output_shown_is_that_of_the_code(tmp_path: Path) -> None:
    """The README's table comes from the default grid; its first column is computed anew here."""
    command = "guardtrain curve grid.budgets=[16,32] 'plot.panels=[{test: counterfactual, metric: auroc}]'"
    text = _shell(command, tmp_path).stdout
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    table = shown[shown.index("AUROC on 'counterfactual'") :]
    for label in ("real only", "pairs ¼ (replace)", "pairs ½ (replace)", "pairs only"):
        cells = [re.search(rf"{re.escape(label)} +(\S+)±", part) for part in (table, text)]
        assert all(cells), label
        values = [float(cell[1]) for cell in cells if cell]
        assert abs(values[0] - values[1]) <= 0.002, label  # another machine rounds embeddings otherwise
