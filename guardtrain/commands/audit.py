"""`guardtrain audit`: what the embeddings give away besides the label, before a gain from pairs is believed."""

from __future__ import annotations

import csv
import json
import logging
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools
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
    pools = load_pools(settings, log.info)

    from guardtrain.curves.audit.measure import audit_pools
    from guardtrain.curves.audit.report import audit_text

    measured = AuditSettings(**{field.name: getattr(settings, field.name) for field in fields(AuditSettings)})
    audit = audit_pools(pools, measured, log.info)
    log.info("")
    show(audit_text(audit))
    files = write_audit(audit, folder)
    log.info("audit     %s", " ".join(str(file) for file in files))
    log.info("%.0f s in all", elapsed.seconds())


def write_audit(audit: Audit, folder: Path) -> list[Path]:
    """Write `audit.json` (everything, with the findings in words) and `audit.csv` (a row a figure) into `folder`."""
    from guardtrain.curves.audit.report import audit_rows, findings

    whole = _plain(asdict(audit) | {"findings": findings(audit)})
    rows = audit_rows(audit)
    files = [folder / AUDIT_FILE, folder / ROWS_FILE]
    replace_file(files[0], lambda path: path.write_text(json.dumps(whole, indent=1, ensure_ascii=False), "utf-8"))

    def table(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(_plain(rows))

    replace_file(files[1], table)
    return files


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
