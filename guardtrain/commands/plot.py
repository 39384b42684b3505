"""`guardtrain plot`: figures, summary, tables and report of results that are there."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from guardtrain.commands.figure import draw, written
from guardtrain.config import PlotConfig
from guardtrain.config_checks import typed
from guardtrain.errors import DataError

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Draw what `config` (see `PlotConfig`) describes."""
    settings = typed(config, PlotConfig)

    from guardtrain.curves.folder import RESULTS_FILE, of_last_curve
    from guardtrain.curves.results import ResultsTable

    path = Path(settings.results)
    file = path / RESULTS_FILE if path.suffix != ".parquet" else path
    if not file.is_file():
        raise DataError(f"There are no results at {file}. Give a curve's folder, such as results=outputs/curve/scenes.")
    frame = ResultsTable(file).read()
    if not settings.all_runs:
        frame = of_last_curve(frame, file.parent)
    folder = Path(settings.out) if settings.out else file.parent
    files = draw(frame, settings.plot, file.parent, folder, outlook=True)
    for line in written(files):
        log.info("%s", line)
