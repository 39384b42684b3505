"""Figures that others published, as data with their source; none is ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def papers() -> list[str]:
    """The names `published_tables` knows.

    >>> papers()
    ['on_unsafebench', 'safetypairs', 'unsafebench']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def published_tables(name: str = "unsafebench") -> dict[str, dict[str, Any]]:
    """Tables by name, each with `what`, `source`, `table` (its number in the paper; None where the source gives none).

    `metric` says which of ours all figures of a table are, `unit: percent` that they are in percent. A table that was
    not read in its source, but where others had copied it, says so in `read_from`.

    >>> published_tables()["composition"]["rows"]["all"]["all"]
    10146
    """
    import yaml

    tables: dict[str, dict[str, Any]] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text("utf-8"))
    return tables
