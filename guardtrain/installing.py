"""The command line that installs an optional part of guardtrain into the very environment that runs it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

_NAME = "guardtrain"


@cache
def install_line(extra: str = "") -> str:
    """Return what installs the requirements of an extra, or of guardtrain itself, in this environment.

    guardtrain may be here as a wheel or from an index (pip then takes the extra's list from what is installed), as a
    checkout that is installed in place (whose list may be newer than what was installed), or as a checkout alone; and
    `pip` in a shell may be that of another Python.

    Args:
        extra: such as `onnx`; empty for what everything needs.
    """
    part = f"[{extra}]" if extra else ""
    checkout = _checkout()
    try:
        found = distribution(_NAME)
    except PackageNotFoundError:
        found = None
    if checkout is not None and (found is None or _is_in_place(found)):
        return f"{_installer()} -e {shlex.quote(f'{_short(checkout)}{part}')}"
    return f"{_installer()} {shlex.quote(f'{_NAME}{part}')}"


def _checkout() -> Path | None:
    """The folder with pyproject.toml that this package runs from; None where it is installed elsewhere."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def _is_in_place(found: Distribution) -> bool:
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(origin.get("dir_info", {}).get("editable"))


def _installer() -> str:
    """Return what installs into the environment of this process, whatever a shell's `pip` belongs to."""
    python = Path(sys.executable)
    if find_spec("pip") is None:
        return f"uv pip install --python {shlex.quote(_short(python))}"
    pip = shutil.which("pip")
    if pip is not None and Path(pip).parent == python.parent:
        return "pip install"
    return f"{shlex.quote(_short(python))} -m pip install"


def _short(path: Path) -> str:
    """The path from the working folder where it lies below it."""
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
