"""Runs the notebooks from top to bottom, each in an empty folder of its own: `python notebooks/execute.py [NAME …]`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
TIMEOUT_S = 600  # of a cell; embedding on a slow machine takes the longest


def notebooks(names: list[str]) -> list[Path]:
    """The notebooks whose names start with one of `names`; all of them where there is none."""
    found = sorted(FOLDER.glob("*.ipynb"))
    return [path for path in found if not names or any(path.name.startswith(name) for name in names)]


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook at `path` with the outputs of a run in `folder`, with this Python and its `guardtrain` command.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; a command in a `%%bash` cell counts.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = dict(os.environ)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, where ipywidgets are not installed
    try:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute()
    finally:
        os.environ.clear()
        os.environ.update(environment)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main(names: list[str]) -> None:
    """Run the notebooks and write the new outputs into them."""
    for path in notebooks(names):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = execute(path, Path(folder))
        nbformat.write(done, path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
