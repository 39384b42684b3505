"""What a user can set about collecting runs; light, so that the config schema can import it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardtrain.curves.results import METRICS
from guardtrain.curves.tuning.settings import LOG_LOSS
from guardtrain.errors import ConfigError

EXPORTS = (".parquet", ".csv", ".jsonl", ".md", ".tex")


@dataclass
class CollectSettings:
    """`guardtrain results`: any folders of runs and sweeps → one table: filtered, ranked with intervals, exported.

    Args:
        folders: where runs are looked for, with all folders below; they may be given without `folders=`.
        metric: what is ranked by.
        test: the test set it is of; null for each run's first with pairs, else its first. `validation`: trials of
            `tune`. Runs that other images judged under the same name have a ranking of their own.
        slice: of the test set: `all`, a category or a source.
        where: column -> value or list of values to keep, such as `{head: mlp, budget: [512, 1024]}`; settings are
            columns, too: `{loss.l2: 1.0}`. A value that no run has is an error, unless it ends in a question mark.
        show: rows that are printed.
        out: a file: every row for .parquet, .csv and .jsonl, the ranked table for .md and .tex; null for none.
    """

    folders: list[str] = field(default_factory=lambda: ["outputs"])
    metric: str = "auroc"
    test: str | None = None
    slice: str = "all"
    where: Any = None  # a mapping; typed as one, Hydra lets nobody add to it
    show: int = 20
    out: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in (*METRICS, LOG_LOSS):
            raise ConfigError(f"metric is '{self.metric}'; allowed: {', '.join((*METRICS, LOG_LOSS))}.")
        if not self.folders:
            raise ConfigError("folders is empty; name at least one folder of runs, such as outputs.")
        if self.show < 1:
            raise ConfigError(f"show must be at least 1; got {self.show}.")
        if self.out is not None and Path(self.out).suffix not in EXPORTS:
            raise ConfigError(f"out is '{self.out}'; it must end in one of {', '.join(EXPORTS)}.")
