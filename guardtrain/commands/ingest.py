"""`guardtrain ingest`: per-image scores that others published become a curve of ours."""

from __future__ import annotations

import logging
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.commands.data import setting_of
from guardtrain.commands.terminal import show
from guardtrain.config import IngestConfig
from guardtrain.config_checks import typed
from guardtrain.errors import DataError
from guardtrain.sources.unclear import settings_told

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.published import Published

WIDTH = 100
METRIC = "auroc"

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Read what `config` (see `IngestConfig`) describes and keep it as results and scores."""
    settings = typed(config, IngestConfig)

    from guardtrain.curves.folder import RESULTS_FILE, SCORES_FOLDER
    from guardtrain.curves.published import POOLED_FOLDER, read_published, write_published
    from guardtrain.curves.results import ResultsTable

    folder = Path(settings.out)
    try:
        with settings_told(setting_of("published")):
            published = read_published(settings.published)
    except DataError as error:
        if f"{settings.data_dir}{os.sep}" in str(error) and not Path(settings.data_dir).is_dir():
            hint = f"data_dir is '{settings.data_dir}', and there is no such folder: give data_dir=PATH."
            raise DataError(f"{error}\n{hint}") from error
        raise
    log.info("%s: %s labels, %s", published.name, f"{len(published.records):,}", published.records.taken)
    keys, pooled = write_published(published, folder)
    with_scores = folder / POOLED_FOLDER if pooled else folder
    frame = ResultsTable(folder / RESULTS_FILE).read()
    at_once = ResultsTable(with_scores / RESULTS_FILE).read()
    show(curve_text(frame[frame["run"].isin(keys)], at_once[at_once["run"].isin(pooled)], published))
    log.info("")
    log.info("results   %s", folder / RESULTS_FILE)
    if pooled:
        log.info("pooled    %s", with_scores / RESULTS_FILE)
    log.info("scores    %s", with_scores / SCORES_FOLDER)
    log.info("figure    guardtrain plot results=%s", folder)


def curve_text(frame: pd.DataFrame, pooled: pd.DataFrame, published: Published, width: int = WIDTH) -> str:
    """The curve as a table: a row a method, a column a budget, and what the intervals cover.

    Args:
        frame: rows of the curve.
        pooled: rows of all folds at once; none where runs are seeds.
        published: what was read.
        width: in characters.
    """
    from guardtrain.curves.results import METRICS
    from guardtrain.curves.statistics import number_text, seeds_text, summarise

    folds = published.design == "folds"
    points = summarise(frame[frame["slice_kind"] == "all"], METRIC)
    at_once = pooled[pooled["slice_kind"] == "all"].set_index(["head", "budget"])[METRIC]
    budgets = sorted(int(b) for b in points["budget"].unique())
    heads = published.heads
    cells = {
        (row["head"], int(row["budget"])): number_text(row["mean"])
        + (f"±{number_text(row['half_width'])}" if row["half_width"] == row["half_width"] else "")
        for row in points.to_dict("records")
    }
    stub = max(*(len(head) for head in heads), len("training images"), 20 if folds else 0)
    cell = max(len(text) for text in cells.values()) + 2
    room = max(2, (width - 2 - stub) // cell)
    shown = _spread(budgets, room)
    lines = ["  " + "training images".ljust(stub) + "".join(f"{b:,}".rjust(cell) for b in shown)]
    lines.append("  " + "─" * (stub + cell * len(shown)))
    for head in heads:
        lines.append("  " + head.ljust(stub) + "".join(cells.get((head, b), "–").rjust(cell) for b in shown))
        if folds:
            values = [number_text(at_once.get((head, b), float("nan"))) for b in shown]
            # under the mean, not under its interval
            lines.append(
                ("    all folds at once".ljust(stub + 2) + "".join(f"  {v}".ljust(cell) for v in values)).rstrip()
            )
    seeds = points["n_seeds"].to_numpy()
    count = seeds_text(seeds).replace("seed", "fold") if folds else seeds_text(seeds)
    title = f"{METRICS[METRIC]} on '{published.name}' · {len(published.records):,} images · {count}"
    notes = (
        [f"Not shown: {', '.join(f'{b:,}' for b in budgets if b not in shown)}."] if len(shown) < len(budgets) else []
    )
    notes.append(_about(published, int(seeds.max())))
    wrapped = [textwrap.fill(n, width, initial_indent="  ", subsequent_indent="  ") for n in notes]
    return "\n".join([title, *lines, *wrapped])


def _about(published: Published, count: int) -> str:
    """Say what the column `seed` stands for, and what the intervals cover."""
    if published.design == "seeds":
        return (
            "± is half of a 95 % Student t interval over seeds; every run scored the same images, so it does not cover "
            "what other test images would have given. `seed` is theirs."
        )
    n = len(published.records)
    text = (
        f"`seed` is the fold: each was trained on other images and tested on other images ({n:,} in all). ± is half of "
        f"a 95 % Student t interval over the {count} folds, and covers both; it is somewhat too narrow, for any two "
        f"folds share {count - 2}/{count - 1} of the images they draw from (Bengio and Grandvalet, JMLR 5, 2004). All "
        "folds at once: one AUROC over all images; a curve of its own with its scores, where a bootstrap draws images "
        "and holds the training fixed."
    )
    if published.told_apart < len(published.records):
        text += (
            f" Without ids, {published.told_apart:,} of the images can be told apart; the others are matched between "
            "methods by their order within fold and label."
        )
    return text


def _spread(values: list[int], most: int) -> list[int]:
    """At most `most` of `values`, evenly, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
