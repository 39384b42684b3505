"""`guardtrain calibrate`: a guard and labelled images → the guard with probabilities and thresholds for such images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from guardtrain.benchmarks.calibrating_settings import CalibrateSettings
from guardtrain.benchmarks.settings import BenchmarkSettings
from guardtrain.commands import elapsed
from guardtrain.commands.terminal import show
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from guardtrain.benchmarks.scores import Contender
    from guardtrain.embeddings import Embeddings

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Calibrate what `config` (see `CalibrateSettings`) names."""
    settings = typed(config, CalibrateSettings)
    settings.rules()  # refused before anything is embedded
    settings = settings.with_packages(log.info)

    from guardtrain.benchmarks.calibrating import calibrate_guard, chosen_rows
    from guardtrain.benchmarks.scores import require_readable
    from guardtrain.commands.benchmark_data import contenders, data_sets, embedder
    from guardtrain.commands.export import summary_of
    from guardtrain.guards.validation import Validation

    told = _as_benchmark(settings)
    contender = contenders(told)[0]
    sets = data_sets(told, log.info)
    if len(sets) != 1:
        names = ", ".join(one.name for one in sets)
        raise ConfigError(f"A guard is calibrated on one data set; these are {len(sets)}: {names}. Name one of them.")
    data = sets[0]
    require_readable([contender], sets)
    unsafe = int((data.records.labels == 1).sum())
    if not 0 < unsafe < len(data.records):  # refused before anything is embedded
        raise DataError(
            f"The data set '{data.name}' has {len(data.records) - unsafe:,} safe and {unsafe:,} unsafe images; "
            "probabilities and thresholds need both. Give labelled images of both kinds, such as those the guard will "
            "judge."
        )
    found = embedder(told, log.info)(contender, data)
    rows = chosen_rows(data.ids, found.records.ids)
    every = len(rows)
    rows = _unseen(contender, data.name, found, rows, settings.training_images)
    limit, seed = settings.validation_limit, settings.seed
    validation = Validation.of(found, rows, f"the data set {data.name}", limit=limit, seed=seed)
    folder = contender.guard.path
    out = Path(settings.out).expanduser() if settings.out else folder.with_name(f"{folder.name}-calibrated")
    exported = calibrate_guard(out, contender.guard, validation, settings, log.info, every - len(rows))
    show(summary_of(exported))
    log.info("%.1f s in all", elapsed.seconds())


def _unseen(contender: Contender, name: str, found: Embeddings, rows: np.ndarray, training_images: str) -> np.ndarray:
    """The rows of images that the guard was not trained on; all of them where it does not know, or `keep` is said."""
    import numpy as np

    from guardtrain.benchmarks.overlap import told_trained
    from guardtrain.benchmarks.training_images import KEEP
    from guardtrain.guards.known_images import TRAINED

    own = contender.guard.known_images.made_of(np.asarray(found.matrix[rows])).get(TRAINED)
    if own is None or not own.any():
        return rows
    counts, images = (int(own.sum()), len(rows)), f"images of '{name}'"
    log.info(told_trained(contender.entrant.name, *counts, images, training_images, left_out="left out"))
    if training_images == KEEP:
        return rows
    left = found.records.labels[rows[~own]]
    if not 0 < int((left == 1).sum()) < len(left):
        raise DataError(
            f"Of the {len(rows):,} images of '{name}' {int(own.sum()):,} are among {contender.entrant.name}'s training "
            f"images, and the others are {int((left == 1).sum()):,} unsafe and {int((left == 0).sum()):,} safe ones; "
            "probabilities and thresholds need both. Give images that it was not trained on."
        )
    return rows[~own]


def _as_benchmark(settings: CalibrateSettings) -> BenchmarkSettings:
    """Return the guard and data as the benchmark's settings, which know how they are named."""
    return BenchmarkSettings(
        guards=[{"path": settings.guard, "revision": settings.revision}],
        data_sets=settings.data_sets,
        trusted_heads=settings.trusted_heads,
        checkpoint=settings.checkpoint,
        device=settings.device,
        batch_size=settings.batch_size,
        out="",
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir,
    )
