"""`guardtrain benchmark`: is my guard better than what is out there, on my data?"""

from __future__ import annotations

import logging
import os
import shutil
import textwrap
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.benchmarks.settings import BenchmarkSettings
from guardtrain.commands.terminal import show
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError, DataError
from guardtrain.files import note_drawn, replace_file

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.benchmarks.effectiveness import Entrant, How
    from guardtrain.benchmarks.scores import Contender, DataSet, Scores, SetAside

METRICS_FILE, SCORES_FILE, REPORT_FILE = "benchmark", "scores.parquet", "report.md"
SCORES_FOLDER = "scores"

log = logging.getLogger(__name__)


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """`data=…` as the setting `data_sets`: elsewhere `data` is a config group, here it may be files, and several.

    >>> as_overrides(["guards=[a,b]", "data=[mine.csv,unsafebench]"])
    ['guards=[a,b]', 'data_sets=[mine.csv,unsafebench]']
    """
    return [f"data_sets={text[5:]}" if text.startswith("data=") else text for text in arguments]


def run(config: DictConfig) -> None:
    """Compare what `config` (see `BenchmarkSettings`) names."""
    settings = typed(config, BenchmarkSettings)

    from guardtrain.benchmarks.scores import ScoresFolder, require_readable, score_all
    from guardtrain.commands.benchmark_data import contenders, data_sets, embedder

    _require_model(settings)
    started = time.perf_counter()
    folder = Path(settings.out).expanduser()
    guards = contenders(settings)
    try:
        sets = data_sets(settings, log.info)
        _require_names(settings, guards, sets)
        require_readable(guards, sets)
        scores = score_all(guards, sets, ScoresFolder(folder / SCORES_FOLDER), embedder(settings, log.info), log.info)
    except DataError as error:
        if f"{settings.data_dir}{os.sep}" in str(error) and not Path(settings.data_dir).is_dir():
            hint = f"data_dir is '{settings.data_dir}', and there is no such folder: give data_dir=PATH."
            raise DataError(f"{error}\n{hint}") from error
        raise
    scored = time.perf_counter()
    files = _compared(guards, sets, scores, settings, folder)
    for file in files:
        log.info("%-9s %s", {".parquet": "table", ".csv": "table", ".md": "report"}.get(file.suffix, "figure"), file)
    log.info("%.1f s for scores, %.1f s for the comparison", scored - started, time.perf_counter() - scored)


def _require_names(settings: BenchmarkSettings, guards: Sequence[Contender], sets: Sequence[DataSet]) -> None:
    """Refuse categories and sources in the settings that no data set has."""
    from guardtrain.benchmarks.alignment import require_there

    categories, sources = (
        {str(name) for data in sets for name in data.records.column(column) if name is not None}
        for column in ("category", "source")
    )
    for guard in guards if categories else ():  # without any, all are judged on all images, and that is told
        if guard.told:
            require_there(f"categories of {guard.entrant.name}", guard.entrant.categories, categories)
    for name in ("real", "generated"):
        require_there(name, getattr(settings, name), sources)


def _require_model(settings: BenchmarkSettings) -> None:
    """Raises ConfigError where `vlm=…` is chosen and no model is named: it would be left out without a word."""
    from hydra.core.hydra_config import HydraConfig

    chosen = HydraConfig.get().runtime.choices.get("vlm") if HydraConfig.initialized() else None
    if chosen and not settings.vlm.model:
        raise ConfigError(f"vlm={chosen} asks a model, and none is named: vlm.model=NAME, as its endpoint calls it.")


def _compared(
    guards: Sequence[Contender],
    sets: Sequence[DataSet],
    scores: dict[tuple[str, str], Scores],
    settings: BenchmarkSettings,
    folder: Path,
) -> list[Path]:
    """Print the comparison and write its files."""
    from guardtrain.benchmarks import figure, report
    from guardtrain.benchmarks.effectiveness import How
    from guardtrain.benchmarks.overlap import set_aside
    from guardtrain.benchmarks.scores import scores_table
    from guardtrain.benchmarks.tables import benchmark_tables, brackets
    from guardtrain.benchmarks.tables_detail import detail_tables
    from guardtrain.benchmarks.tables_text import text_of

    entrants = [guard.entrant for guard in guards]
    names = [entrant.name for entrant in entrants]
    reference = settings.compare_with or names[0]
    how = How(settings.replicates, settings.confidence, settings.seed, tuple(settings.real), tuple(settings.generated))
    aside = set_aside(guards, sets, scores, settings.training_images)
    frame, notes = compare(guards, sets, scores, how, settings, aside)
    tables = benchmark_tables(frame, entrants, reference, settings.confidence)
    log.info("")
    show(f"{text_of(tables, _width())}\n  {brackets(settings.confidence)}")
    told = [*report.findings(frame, reference), *(f"Note: {note}" for note in notes)]
    fill = partial(textwrap.fill, width=110, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    show("\n".join(["", *map(fill, told)]))
    log.info("")
    about = {guard.entrant.name: _about(guard) for guard in guards}
    details = detail_tables(frame, entrants, settings.confidence)
    text = report.report_markdown(frame, tables, entrants, reference, how, about, notes, details)
    files = _write_tables(frame, folder)
    replace_file(folder / SCORES_FILE, lambda path: _parquet(scores_table(guards, sets, scores, aside), path))
    files.append(folder / SCORES_FILE)
    files += figure.save(figure.draw(frame, entrants, settings.confidence), folder, settings.formats)
    note_drawn(files)
    replace_file(folder / REPORT_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    if details:
        where = folder / REPORT_FILE
        log.info("F1, AUROC, accuracy, FPR and FNR of each category in each source, with intervals: %s", where)
    return [*files, folder / REPORT_FILE]


def compare(
    guards: Sequence[Contender],
    sets: Sequence[DataSet],
    scores: dict[tuple[str, str], Scores],
    how: How,
    settings: BenchmarkSettings,
    aside: SetAside | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """The tidy table of a benchmark, and what its reader must know.

    Args:
        guards, sets, scores: who said what of which images.
        how: of intervals.
        settings: what else is shown.
        aside: images that do not count for a guard.

    Raises:
        ConfigError: published figures that there are not, or data sets that there are not.
    """
    from guardtrain.benchmarks import beside, shift
    from guardtrain.benchmarks.coverage import coverage_notes, coverage_rows
    from guardtrain.benchmarks.effectiveness import difference_rows, evaluate, metric_rows, tidy
    from guardtrain.benchmarks.overlap import overlap_notes, unknown_note
    from guardtrain.benchmarks.scores import judged_by
    from guardtrain.guards.known_images import TRAINED

    beside.check_reference(settings.reference)
    likeness = shift.Likeness(settings.in_distribution, {data.name: data.origin for data in sets if data.origin})
    likeness.check([data.name for data in sets])
    entrants = [guard.entrant for guard in guards]
    names = [entrant.name for entrant in entrants]
    place = names.index(settings.compare_with) if settings.compare_with else 0
    known = [beside.known_as(guard.guard.about) for guard in guards]
    rows, notes, evaluated = [], [], []
    for data in sets:
        judged = judged_by(guards, data, scores, aside)
        notes += overlap_notes(guards, data, scores, settings.training_images)
        notes += coverage_notes(judged)
        one = evaluate(judged, entrants, how, place)
        evaluated.append(one)
        if one.judged.labels.any():
            notes += _unjudged(one.judged.categories, data.name, guards)
        notes += trained_on_it(
            data, [own.entrant for own in guards if scores[own.entrant.name, data.name].marked(TRAINED) is None]
        )
        rows += [*metric_rows(one), *coverage_rows(one), *difference_rows(one), *shift.shift_rows(one)]
        if settings.reference is not None:
            rows += beside.published_rows(one, settings.reference, known, data.origin)
    notes += unknown_note({guard.entrant.name: guard.guard for guard in guards if not guard.asks})
    notes += likeness.told(evaluated)
    notes += [note for guard in guards if guard.asks for note in _certain(guard.entrant.name, sets, scores)]
    return tidy([*rows, *shift.distribution_rows(evaluated, likeness)]), notes


def _certain(name: str, sets: Sequence[DataSet], scores: dict[tuple[str, str], Scores]) -> list[str]:
    """Return notes on the AUROC of a model whose verdicts came without probabilities."""
    found = [scores[name, data.name].table["probability"] for data in sets]
    total, without = sum(map(len, found)), sum(column.null_count for column in found)
    if not without:
        return []
    if without < total:
        return [f"{name} gives {without:,} of {total:,} verdicts without a probability: AUROC takes them as certain."]
    return [
        f"{name} gives verdicts and no probability, so its AUROC is that of one threshold. Where its endpoint gives "
        "log-probabilities, vlm.logprobs=true asks for them."
    ]


def trained_on_it(data: DataSet, entrants: Sequence[Entrant]) -> list[str]:
    """Which guards may have seen these very images in training."""
    return [
        f"{entrant.name} was trained on images of '{data.origin}', and '{data.name}' is all of its pool: its figures "
        f"there are too good. data={data.origin} is what was held out."
        for entrant in entrants
        if data.pool and entrant.trained_on == data.origin
    ]


def _unjudged(categories: Sequence[str], data: str, guards: Sequence[Contender]) -> list[str]:
    """Return notes on guards that are made for categories which a data set does not have."""
    from guardtrain.benchmarks.alignment import matched

    out = []
    for guard in guards:
        wanted = guard.entrant.categories
        if not wanted or matched(wanted, categories):
            continue
        name, what = guard.entrant.name, ", ".join(wanted)
        if not categories:
            out.append(f"'{data}' has no categories, so {name} ({what}) is judged on all of its unsafe images.")
        else:
            out.append(
                f"{name} is judged on {what}, which '{data}' does not have ({', '.join(categories[:12])}): there "
                f"only its false alarms count. To judge it on others: 'categories={{{name}: [...]}}', or [] for all."
            )
    return out


def _width() -> int:
    """Characters of a line of tables: the terminal's; where there is none, enough for the widest usual one."""
    return min(160, max(80, shutil.get_terminal_size((120, 24)).columns))


def _about(contender: Contender) -> str:
    guard = contender.guard
    imported = guard.about.get("imported") or {}
    training = guard.about.get("training") or {}
    origin = (
        f"published ({training.get('paper')})" if imported else f"trained on {training.get('data', 'unknown data')}"
    )
    return f"{origin}; encoder {guard.spec.label}; operating point {contender.point}"


def _write_tables(frame: pd.DataFrame, folder: Path) -> list[Path]:
    files = [folder / f"{METRICS_FILE}.parquet", folder / f"{METRICS_FILE}.csv"]
    replace_file(files[0], partial(frame.to_parquet, index=False))
    replace_file(files[1], partial(frame.to_csv, index=False))
    return files


def _parquet(table: object, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")
