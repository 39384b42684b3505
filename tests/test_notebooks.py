"""The notebooks: run from top to bottom by continuous integration, a minute each; what is stored is small and clean."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from notebooks.execute import FOLDER, execute, notebooks

pytestmark = pytest.mark.long
ROOT = FOLDER.parent
ALL = notebooks([])


def pictures(notebook: nbformat.NotebookNode) -> int:
    """How many its outputs show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.apart
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    done = execute(path, tmp_path)
    assert pictures(done) == pictures(nbformat.read(path, as_version=4)) >= 1
    stored = nbformat.read(path, as_version=4)
    assert [cell.source for cell in done.cells] == [cell.source for cell in stored.cells]


def test_there_are_four() -> None:
    assert [path.name[:2] for path in ALL] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_what_is_stored_is_whole_small_and_clean(path: Path) -> None:
    """With pictures, for who reads it where nothing runs; without anything of the machine that ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            text = output.get("text", "") + "".join(map(str, output.get("data", {}).values()))
            assert "\x1b" not in text, "colours and progress bars"
            if "image/png" not in output.get("data", {}):
                assert not re.search(r"/tmp|/home|/root|/work|site-packages|Traceback", text)


def test_links_lead_somewhere() -> None:
    for path in ALL:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\]\(([^)]+\.ipynb)\)", text):
            assert (FOLDER / name).is_file(), f"{path.name} links to {name}"
        for name in re.findall(r"experiment=(\w+)", text):
            assert (ROOT / "conf" / "experiment" / f"{name}.yaml").is_file()
