"""Pages that are made when the site is built: the first of the README, commands of their help, the API of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import guardtrain as gt
from guardtrain.commands.registry import COMMANDS, PLAIN_COMMANDS

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file has."""
    for name, text in {"index.md": _first(), "commands.md": _commands(), "api.md": _api()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def _first() -> str:
    """Return the README, its links as the site has them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/pages/", "](", text)


def _commands() -> str:
    """Return a section for each command: what it does, and its help."""
    out = ["# Commands\n"]
    for name, summary in {**COMMANDS, **PLAIN_COMMANDS}.items():
        out.append(f"## {name}\n\n{summary[0].upper()}{summary[1:]}.\n")
        if name in COMMANDS:
            command = [sys.executable, "-m", "guardtrain", name, "--help-all"]
            said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
            out.append(f"```text\n{said.rstrip()}\n```\n")
    return "\n".join(out)


def _api() -> str:
    """Return a section for each public name, with a directive that stands for its docstring."""
    out = ["# API\n", "All of it is in `import guardtrain as gt`.\n"]
    for name in gt.__all__:
        made = getattr(gt, name)
        out.append(f"::: {made.__module__}.{made.__qualname__}\n")
    return "\n".join(out)
