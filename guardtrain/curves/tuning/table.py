"""The trials of a search as a table: ranked on the terminal, and as Parquet and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from guardtrain.curves.statistics import half_width
from guardtrain.curves.tuning.study import Trial
from guardtrain.files import replace_file
from guardtrain.words import text_table

TRIALS_FILE, TRIALS_CSV = "trials.parquet", "trials.csv"


def interval(trial: Trial) -> tuple[float, int]:
    """Half the width of the 95 % Student t interval of a trial's score, and over how many values.

    Over seeds where there are several, else over folds: these share most of their training images, so that interval is
    a guide and no more. NaN where there is one value.
    """
    values = np.array(trial.scores[0] if len(trial.scores) == 1 else trial.by_seed, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return float("nan"), len(values)
    return float(half_width(np.array([values.std(ddof=1)]), np.array([len(values)]))[0]), len(values)


def write_trials(folder: Path, trials: Sequence[Trial], names: Sequence[str], metric: str, score: str) -> None:
    """`trials.parquet` and `trials.csv` in `folder`: a row a trial, best first.

    Args:
        names: of the parameters: a column each, of numbers where all values are, else of text.
    """
    columns: dict[str, Any] = {
        "trial": [trial.number for trial in trials],
        "metric": [metric] * len(trials),
        "on": [score] * len(trials),
        "score": [trial.score for trial in trials],
        "half_width": [None if np.isnan(h := interval(trial)[0]) else h for trial in trials],
        "n": [interval(trial)[1] for trial in trials],
        "seconds": [trial.seconds for trial in trials],
        "failed": [trial.reason for trial in trials],
    }
    for name in names:
        values = [trial.values.get(name) for trial in trials]
        if not all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
            values = [None if v is None else str(v) for v in values]
        columns[name] = values
    by_seed = [[None if np.isnan(value) else float(value) for value in trial.by_seed] for trial in trials]
    table = pa.table({**columns, "by_seed": pa.array(by_seed, pa.list_(pa.float64()))})
    replace_file(folder / TRIALS_FILE, lambda path: pq.write_table(table, path))
    flat = pa.table({**columns, "by_seed": [json.dumps(values) for values in by_seed]})
    replace_file(folder / TRIALS_CSV, lambda path: pyarrow.csv.write_csv(flat, path))


def ranked_text(trials: Sequence[Trial], names: Sequence[str], metric: str, on: str, seeds: int, show: int) -> str:
    """The best trials as a table of text, with a title and what the intervals are; `on` says what judged them."""
    finished = [trial for trial in trials if trial.score is not None]
    shown = finished[:show]
    rows = [["", *names, metric, "95 % interval", "trial"]]
    for rank, trial in enumerate(shown, 1):
        half, _ = interval(trial)
        span = "–" if np.isnan(half) else f"±{half:.4f}"
        values = [_cell(trial.values[name]) if name in trial.values else "–" for name in names]
        rows.append([str(rank), *values, f"{trial.score:.4f}", span, str(trial.number)])
    lines = text_table(rows)
    times = f"{seeds} seeds" if seeds > 1 else "one seed"
    title = f"{len(finished)} trials by {metric} on {on}, {times}"
    over = "seeds" if seeds > 1 else "folds, which share images: a guide and no more"
    notes = [f"  ±: half of a 95 % Student t interval over {over}; none is corrected for how many are compared."]
    if not any(interval(trial)[1] > 1 for trial in shown):
        notes = ["  One seed has no interval: seeds=3 shows what the order is worth."]
    if shown and not np.isnan(half := interval(shown[0])[0]):
        near = sum(abs((t.score or 0.0) - (shown[0].score or 0.0)) <= half for t in finished)
        notes.append(f"  {near} of {len(finished)} trials are no further from the best than its own interval.")
    if failed := len(trials) - len(finished):
        reasons = "; ".join(dict.fromkeys(trial.reason for trial in trials if trial.score is None))
        notes.append(f"  {failed} trials failed: {reasons}.")
    return "\n".join([title, *lines, *notes])


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)
