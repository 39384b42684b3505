"""The commands of README and pages are run as they stand, in their order, in one empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.apart
ROOT = Path(__file__).parent.parent
VENV = Path(sys.prefix)
MADE = shutil.which("make") is not None and (VENV / ".installed").is_file()
CONSOLE = re.compile(r"```console\n(.*?)```", flags=re.S)
PAGES = ROOT / "docs" / "pages"
TEXTS = {
    name: (PAGES / f"{name}.md" if name != "README" else ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("README", "first", "measure", "train", "ship", "compare", "data", "extend")
}
COMMANDS = [
    line.removeprefix("$ ")
    for text in TEXTS.values()
    for block in CONSOLE.findall(text)
    for line in block.splitlines()
    if line.startswith("$ ")
]

# Imports the large libraries, then makes a process for each command that finds them there: seconds each are saved, and
# the command still is alone with the modules of guardtrain, so that one that it forgets to import is missing.
_STARTER = """
import json, os, signal, sys
import hydra, lightning, matplotlib.pyplot, open_clip, pandas, pyarrow.parquet, torch
assert not any(name.partition(".")[0] == "guardtrain" for name in sys.modules)
for line in sys.stdin:
    folder, arguments, out, err = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(300)
        for fd, (file, flags) in enumerate([(os.devnull, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY)]):
            os.dup2(os.open(file, flags), fd)
        os.chdir(folder)
        sys.argv = arguments
        from guardtrain.cli import run
        run()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Start = Callable[[str, Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """A function that runs a command `guardtrain …` in a folder as a shell does, with the libraries imported before."""
    files = [tmp_path_factory.mktemp("said") / name for name in ("out", "err")]
    command = [sys.executable, "-c", _STARTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None

        def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
            words = _words(command, folder)
            for file in files:
                file.write_text("")
            print(json.dumps([str(folder), words, *map(str, files)]), file=starter.stdin, flush=True)
            code = int(starter.stdout.readline())
            return subprocess.CompletedProcess(words, code, *(file.read_text() for file in files))

        yield run


def _words(command: str, folder: Path) -> list[str]:
    """The command and its arguments as the shell passes them on, patterns of files and quotes resolved."""
    done = _shell(f"guardtrain() {{ printf '%s\\0' guardtrain \"$@\"; }}\n{command}", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def _shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make curve` left a small curve, or what it runs where there is no make."""
    folder = tmp_path_factory.mktemp("readme")
    small = f"grid=small out={folder}/outputs/curve/scenes"
    done = _shell(f"make curve VENV={VENV} ARGS='{small}'" if MADE else f"guardtrain curve {small}", ROOT)
    assert done.returncode == 0, done.stderr
    assert (folder / "outputs/curve/scenes/curve.png").is_file()
    return folder


def test_guardtrain_commands_run_as_written(start: Start, folder: Path) -> None:
    ours = [command for command in COMMANDS if command.startswith("guardtrain ")]
    assert len(ours) >= 8
    for command in ours:
        done = start(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if command == "guardtrain curve grid=small":
            assert "Data efficiency, AUROC on 'counterfactual'" in done.stdout
    for made in ("outputs/curve/scenes/curve.png", "figures/curve.svg", "stores/photos/encoder.json"):
        assert (folder / made).is_file()


def test_make_is_asked_for_what_is_there() -> None:
    assert [command for command in COMMANDS if command.startswith("make")] == ["make curve", "make test"]


@pytest.mark.skipif(not MADE, reason="make is not installed, or did not install this environment")
def test_make_commands_run(folder: Path) -> None:
    """With less work: `make curve` on a small grid, one file collected instead of the tests we are in run."""
    assert (folder / "outputs/curve/scenes/curve.png").is_file()
    # linters and tests at the same time; we are in the one, and the other would take a minute again
    steps = _shell(f"make --dry-run test VENV={VENV}", ROOT).stdout
    assert "lint pytest" in steps
    few = "-n 0 tests/test_records.py --collect-only -p no:cacheprovider"
    collected = _shell(f"make pytest VENV={VENV} ARGS='{few}'", ROOT)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert "tests/test_records.py" in collected.stdout


def test_the_output_shown_is_that_of_the_code(start: Start, tmp_path: Path) -> None:
    """The first curve's table comes from the default grid; its first column is computed anew here."""
    command = "guardtrain curve grid.budgets=[16,32] 'plot.panels=[{test: counterfactual, metric: auroc}]'"
    text = start(command, tmp_path).stdout
    table = TEXTS["first"][TEXTS["first"].index("AUROC on 'counterfactual'") :]
    for label in ("real only", "pairs ¼ (replace)", "pairs ½ (replace)", "pairs only"):
        cells = [re.search(rf"{re.escape(label)} +(\S+)±", part) for part in (table, text)]
        assert all(cells), label
        values = [float(cell[1]) for cell in cells if cell]
        assert abs(values[0] - values[1]) < 0.0025, label  # another machine rounds embeddings otherwise


def test_readme_is_short_and_says_what_the_pages_say() -> None:
    readme = TEXTS["README"]
    assert len(readme.splitlines()) <= 150
    (ten,) = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert ten in (PAGES / "python.md").read_text(encoding="utf-8"), "a test runs that page's"
    (first,) = re.findall(r"```text\n(.*?)```", readme, flags=re.S)
    assert first in TEXTS["first"]


def test_links_lead_to_files() -> None:
    for page in [ROOT / "README.md", *PAGES.glob("*.md")]:
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if "://" not in link and not (page.parent / link).exists()], page
