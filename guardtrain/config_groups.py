"""Where the configs lie, and the config groups of a command; light, so that TAB and every command can start with it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


def conf_dir() -> Path:
    """The configs: `guardtrain/conf` in an installed wheel, `conf/` beside the package in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "conf"


@cache
def config_groups(command: str) -> dict[str, str | None]:
    """The groups in the command's defaults list, with what each defaults to."""
    primary: dict[str, Any] = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text("utf-8")) or {}
    groups: dict[str, str | None] = {}
    for entry in primary.get("defaults", []):
        if isinstance(entry, dict):
            ((key, value),) = entry.items()
            name = key.removeprefix("optional ").removeprefix("override ").removeprefix("/")
            if not name.startswith(("hydra/", "local")) and (conf_dir() / name).is_dir():
                groups[name] = value
    return groups
