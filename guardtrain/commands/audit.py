"""`guardtrain audit`: what tells the label unseen, which labels are doubted, and what embeddings give away besides."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools, sources_of
from guardtrain.commands.terminal import show
from guardtrain.config import AuditConfig
from guardtrain.config_checks import typed
from guardtrain.curves.audit.settings import AuditSettings
from guardtrain.files import replace_file

if TYPE_CHECKING:
    from guardtrain.curves.audit.measure import Audit

AUDIT_FILE = "audit.json"
ROWS_FILE = "audit.csv"

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Audit the pools and test sets that `config` (see `AuditConfig`) describes."""
    settings = typed(config, AuditConfig)
    folder = Path(settings.out)
    built = sources_of(settings.data)
    pools = load_pools(settings, log.info, built=built)

    from guardtrain.curves.audit.measure import audit_pools
    from guardtrain.curves.audit.report import audit_text
    from guardtrain.training.pools import HoldOut

    sources, tests = built
    known = sources | {
        f"test {name}": sources[what.pool] if isinstance(what, HoldOut) else what for name, what in tests.items()
    }

    measured = AuditSettings(**{field.name: getattr(settings, field.name) for field in fields(AuditSettings)})
    audit = audit_pools(pools, measured, log.info, known)
    log.info("")
    show(audit_text(audit))
    files = write_audit(audit, folder)
    log.info("audit     %s", " ".join(str(file) for file in files))
    log.info("%.0f s in all", elapsed.seconds())


def write_audit(audit: Audit, folder: Path) -> list[Path]:
    """Write the files of an audit into `folder`.

    `audit.json` has everything, with the findings in words; `audit.csv` a row a figure; `suspects.csv` a row for every
    image whose label is contradicted, and for the halves of every pair that is reversed whatever the seed.
    """
    from guardtrain.curves.audit.entrance_report import SUSPECT_COLUMNS, SUSPECTS_FILE, suspect_rows
    from guardtrain.curves.audit.report import audit_rows, findings

    whole = _plain(asdict(audit) | {"findings": findings(audit)})
    files = [folder / AUDIT_FILE, folder / ROWS_FILE, folder / SUSPECTS_FILE]
    replace_file(files[0], lambda path: path.write_text(json.dumps(whole, indent=1, ensure_ascii=False), "utf-8"))

    rows = audit_rows(audit)
    _write_csv(files[1], list(rows[0]), rows)
    _write_csv(files[2], SUSPECT_COLUMNS, suspect_rows(audit))
    return files


def _write_csv(file: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, fieldnames=columns)
            writer.writeheader()
            writer.writerows(_plain(rows))

    replace_file(file, write)


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
