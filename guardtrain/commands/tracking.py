"""The tracker of a command: its name, its group in a sweep, and the folder that keeps its run's id."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from guardtrain.config import CurveConfig, TrainConfig
from guardtrain.config_checks import plain
from guardtrain.tracking.settings import LoggerSettings

if TYPE_CHECKING:
    from guardtrain.curves.engine import Run
    from guardtrain.tracking.artefacts import Artefact
    from guardtrain.tracking.tracker import Tracker
    from guardtrain.training.pools import Pools

_NO_SERVICE = ("none", "csv")

log = logging.getLogger(__name__)


def job_folder(out: str | Path) -> Path:
    """The folder of this job alone: `out`, but in a sweep, whose jobs may share that, the job's own."""
    job = HydraConfig.get()
    return Path(job.runtime.output_dir) if job.mode == RunMode.MULTIRUN else Path(out)


def tracked(
    settings: CurveConfig | TrainConfig,
    kind: str,
    key: str,
    *,
    losses: bool = True,
    done: bool = False,
) -> AbstractContextManager[Tracker]:
    """A tracker as `settings.logger` wants it.

    Args:
        settings: of the command; all of it is kept, without secrets.
        kind: `curve`, `train` or `finetune`.
        key: of what is made; the same key goes on with the same run.
        losses: whether the tracker also gets the losses of training, which are in the CSV anyway.
        done: whether all of it was made before. A service that has it already gets nothing; one that has not gets what
            it came to. Either is said.
    """
    from guardtrain.tracking.redaction import redacted
    from guardtrain.tracking.registry import track
    from guardtrain.tracking.tracker import TrackedWork, Tracker

    out = Path(settings.out)
    name, group = f"{kind}-{settings.data.name}", settings.logger.group
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        sweep = Path(job.sweep.dir)
        name, group = job_folder(out).name, group or "-".join(sweep.parts[-2:])
    work = TrackedWork(kind, name, job_folder(out), key, redacted(plain(settings)), group, losses)
    logger, service = settings.logger, settings.logger.kind not in _NO_SERVICE
    if done and service:
        if (there := Tracker(logger, work, log.info).kept_id()) is not None:
            log.info("%s has this run already (%s): nothing is new", logger.kind, there)
            service = False
        else:
            log.info("%s gets what this run came to; its losses are in %s", logger.kind, out / "logs")
    if done and not service:
        logger = LoggerSettings("none")
    return track(logger, work, None if done else out, log.info)


def stores_of(settings: CurveConfig | TrainConfig, pools: Pools) -> list[Artefact]:
    """The stores that a command read."""
    from guardtrain.tracking.artefacts import store_artefacts

    return store_artefacts(pools, {name: plain(origin) for name, origin in settings.data.about.items()})


def track_export(folder: Path, out: Path, made: CurveConfig | TrainConfig, pools: Pools, planned: Run) -> None:
    """The guard at `out`, made of the run or curve in `folder`, as a run of its own that uses what that one made.

    Nothing is tracked where the run or curve was not.
    """
    if made.logger.kind in _NO_SERVICE:
        return
    from guardtrain.tracking.artefacts import guard_artefact, head_artefact, results_artefact
    from guardtrain.tracking.redaction import redacted
    from guardtrain.tracking.registry import track
    from guardtrain.tracking.tracker import Outcome, TrackedWork, tracked_run

    settings = made.logger
    guard = guard_artefact(out, pools)
    of_origin = head_artefact if isinstance(made, TrainConfig) else results_artefact
    first: dict[str, Any] = {"from_run": tracked_run(folder, settings.kind), "run": planned.key}
    config = {**redacted(plain(made)), **first}
    work = TrackedWork("export", f"export-{guard.name}", folder, f"export-{planned.key}", config, settings.group)
    with track(settings, work, None, log.info) as tracker:
        tracker.log(lambda: Outcome([*stores_of(made, pools), of_origin(folder, pools)], [guard], summary=first))
