"""Figures that others published, as data with their source; none is ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def published_tables(name: str = "unsafebench") -> dict[str, dict[str, Any]]:
    """Tables by name, each with `what`, `source`, `table` (its number in the paper; None where the source gives none).

    >>> published_tables()["composition"]["rows"]["all"]["all"]
    10146
    """
    import yaml

    tables: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text("utf-8"))
    return tables
