"""`guardtrain results`: any folders of runs and sweeps → one tidy table, ranked, exported; and how to guard with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.commands.arguments import placed_apart
from guardtrain.commands.terminal import show
from guardtrain.config_checks import plain, typed
from guardtrain.curves.collecting.reading import NULL
from guardtrain.curves.collecting.settings import CollectSettings
from guardtrain.curves.results import METRICS
from guardtrain.errors import DataError
from guardtrain.files import replace_file
from guardtrain.grammar import quoted

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.collecting.reading import Collected
    from guardtrain.curves.tables import Table

_MOST_LISTED = 10

log = logging.getLogger(__name__)


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Folders without a setting's name are the setting `folders`.

    >>> as_overrides(["outputs/train", "metric=f1"])
    ['metric=f1', "folders=['outputs/train']"]
    """
    settings, folders = placed_apart(arguments)
    return [*settings, *([f"folders=[{','.join(map(quoted, folders))}]"] if folders else [])]


def run(config: DictConfig) -> None:
    """Collect what `config` (see `CollectSettings`) names."""
    settings = typed(config, CollectSettings)

    from guardtrain.curves.collecting.comparing import rankings
    from guardtrain.curves.collecting.ranking import as_guard, keep, ranking_table, ranking_text
    from guardtrain.curves.collecting.reading import collect

    collected = collect(settings.folders)
    _tell(collected)
    if collected.rows.empty:
        raise DataError(f"There are no runs in {', '.join(settings.folders)}.")
    rows = keep(collected, plain(settings.where))
    found, left_out = rankings(rows, collected.settings, settings.metric, settings.test, settings.slice)
    if left_out:
        log.info("left out:")
        for line in left_out:
            log.info("  %s", line)
        log.info("")
    if settings.out is not None:
        _write(Path(settings.out), rows, [ranking_table(ranking) for ranking in found])
    for number, ranking in enumerate(found):
        if number:
            log.info("")
        show(ranking_text(ranking, settings.show))
        if settings.out is not None and number == len(found) - 1:
            log.info("written   %s", settings.out)
        log.info(as_guard(ranking))
    if len(found) == 1 and settings.slice == "all" and settings.metric in METRICS:
        _tell_encoders(rows, found[0].test, settings.metric)


def _tell_encoders(rows: pd.DataFrame, test: str, metric: str) -> None:
    """Say what pairs are worth with each encoder, of curves that differ in it."""
    from guardtrain.curves.collecting.encoders import encoder_gains, gains_text

    try:
        gains = encoder_gains(rows, test, metric)
    except DataError as error:
        log.info("left out  what pairs are worth with each encoder: %s", error)
        return
    if gains is not None:
        log.info("")
        show(gains_text(gains))


def _tell(collected: Collected) -> None:
    runs = collected.rows.drop_duplicates(["folder", "run"]) if len(collected.rows) else collected.rows
    plural = "s" * (collected.folders != 1)
    log.info("%d run%s in %d folder%s", len(runs), "s" * (len(runs) != 1), collected.folders, plural)
    for folder, reason in collected.passed_over[:_MOST_LISTED]:
        log.info("  passed over: %s: %s", folder, reason)
    if (more := len(collected.passed_over) - _MOST_LISTED) > 0:
        log.info("  and %d more", more)
    log.info("")


def _write(path: Path, rows: pd.DataFrame, tables: Sequence[Table]) -> None:
    """Every row, or the ranked table, by the file's ending."""
    from guardtrain.curves.tables import latex, markdown

    tidy = _of_one_type(rows.drop(columns="holds_head"))
    match path.suffix:
        case ".parquet":
            replace_file(path, lambda file: tidy.to_parquet(file, index=False))
        case ".csv":
            replace_file(path, lambda file: tidy.to_csv(file, index=False))
        case ".jsonl":
            replace_file(path, lambda file: tidy.to_json(file, orient="records", lines=True, force_ascii=False))
        case suffix:
            text = (markdown if suffix == ".md" else latex)(tables)
            replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))


def _of_one_type(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns of settings whose values are of several types as text: no file format holds both in one column.

    A number that is null in some runs has no value there.
    """
    out = rows.copy()
    for name in (name for name, kind in out.dtypes.items() if kind.kind == "O"):
        known = out[name].dropna()
        given = known[known != NULL]
        if len(given) and all(isinstance(value, (int, float)) for value in given):
            known = given
            out[name] = known.reindex(out.index)
        if len({type(value) for value in known}) > 1:
            numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
            out[name] = out[name].astype(float) if numbers else known.astype(str).reindex(out.index)
    return out
