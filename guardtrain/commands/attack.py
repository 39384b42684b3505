"""`guardtrain attack`: how much of its accuracy a guard keeps when images are changed, by malice and by chance."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from guardtrain.commands import elapsed
from guardtrain.commands.data import read_labels, sources_of
from guardtrain.commands.terminal import show
from guardtrain.config import AttackConfig
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError, EncoderError
from guardtrain.files import note_drawn, replace_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from guardtrain.benchmarks.attacks.samples import ImageSet
    from guardtrain.benchmarks.attacks.settings import AttackSettings
    from guardtrain.guards.guard import Guard

TABLE, IMAGES_FILE = "attack", "images.parquet"

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Attack the guards that `config` (see `AttackConfig`) names; attacks that were cut off go on."""
    settings = typed(config, AttackConfig)
    folder = Path(settings.out).expanduser()
    if settings.warning:
        log.warning("%s", settings.warning)
    guards = _guards(settings)
    pools, tests = sources_of(settings.data)
    _read(pools, tests, settings.tests)

    from guardtrain.benchmarks.attacks.samples import image_sets

    sets = image_sets(settings.data.name, pools, tests, settings.tests, settings.data.hold_out_seed)
    images = _attacked(guards, sets, settings, folder)

    from guardtrain.benchmarks.attacks import figure
    from guardtrain.benchmarks.attacks.report import attack_text, trained_notes
    from guardtrain.benchmarks.attacks.results import counted, robust_accuracy

    every = images.to_pandas()
    frame = robust_accuracy(counted(every, settings.training_images), settings.data.name, settings.confidence)
    log.info("")
    show(attack_text(frame, settings, trained_notes(every, guards, settings.training_images)))
    files = [*_written(frame, images, folder), *figure.write(figure.draw(frame, settings.confidence), folder)]
    note_drawn(files)
    log.info("")
    for file in files:
        log.info("%-9s %s", "figure" if file.suffix in (".png", ".pdf") else "table", file)
    log.info("%.0f s in all", elapsed.seconds())


def _read(pools: dict[str, Any], tests: dict[str, Any], wanted: Sequence[str] | None) -> None:
    """Read what the test sets are made of, and say what of its labels was taken as unsafe."""
    chosen = {name: what for name, what in tests.items() if wanted is None or name in wanted}
    own = {f"data.test.{name}": source for name, source in chosen.items() if hasattr(source, "records")}
    held = {f"data.{name}": source for name, source in pools.items()} if len(own) < len(chosen) else {}
    for place, source in {**held, **own}.items():
        read_labels(source, place, log.info)


def _guards(settings: AttackSettings) -> dict[str, Guard]:
    """The guards by name, all refused or none before the first is attacked."""
    from guardtrain.benchmarks.attacks.target import require_attackable
    from guardtrain.guards.guard import Guard

    found: dict[str, Guard] = {}
    for path in settings.guard_paths:
        guard = Guard.load(
            path, checkpoint=settings.checkpoint, device=settings.device, trusted_heads=settings.trusted_heads
        )
        try:
            require_attackable(guard, settings.point)
        except EncoderError as error:
            raise EncoderError(f"{error}\n  With `guardtrain attack`: checkpoint=FILE.") from error
        name = guard.name if guard.name not in found else f"{guard.name} ({path})"
        if name in found:
            raise ConfigError(f"guards names {path} twice.")
        found[name] = guard
    return found


def _attacked(guards: dict[str, Guard], sets: list[ImageSet], settings: AttackSettings, folder: Path) -> pa.Table:
    import pyarrow as pa

    from guardtrain.benchmarks.attacks.running import PARTS, Job, Parts, attack_guard
    from guardtrain.benchmarks.attacks.target import Target
    from guardtrain.embeddings.forwarding import processors, torch_threads
    from guardtrain.sources.frames import by_first_frame

    tables = []
    with Parts(folder / PARTS).writing() as parts, torch_threads(settings.threads or processors()):
        for name, guard in guards.items():
            target = Target(guard, settings.point)
            on_cpu = target.device.type == "cpu"
            batch_size = settings.batch_size or (target.encoder.rows_a_pass if on_cpu else 64)
            for images in sets:
                with _shown(settings.progress, f"{name} on {images.name}") as advance:
                    tables.append(attack_guard(Job(name, target, images, batch_size), settings, parts, advance))
    for images in sets:
        if images.animations:
            log.warning("%s", by_first_frame(images.name, "attacked", sorted(images.animations)))
    return pa.concat_tables(tables)


def _written(frame: pd.DataFrame, images: pa.Table, folder: Path) -> list[Path]:
    """The tidy table as Parquet and CSV, and a row for each image and attack."""
    import pyarrow.parquet as pq

    files = [folder / f"{TABLE}.parquet", folder / f"{TABLE}.csv", folder / IMAGES_FILE]
    replace_file(files[0], lambda path: frame.to_parquet(path, index=False))
    replace_file(files[1], lambda path: frame.to_csv(path, index=False))
    replace_file(files[2], lambda path: pq.write_table(images, path, compression="zstd"))
    return files


@contextmanager
def _shown(progress: bool | None, what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that says which attack it is at; elsewhere a line when an attack is through."""
    from rich.console import Console

    console = Console(stderr=True)
    if progress is False:
        yield lambda title, done, total: None
        return
    if not (progress or console.is_terminal):
        started = time.perf_counter()

        def line(title: str, done: int, total: int) -> None:
            if done == total:
                seconds = time.perf_counter() - started
                log.info("%s: %s, %d images (%.0f s so far)", what, title, done, seconds)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)

        def advance(title: str, done: int, total: int) -> None:
            bar.update(task, description=f"{what}: {title}", completed=done, total=total)

        yield advance
