"""The kinds of trackers by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from guardtrain.errors import ConfigError
from guardtrain.installing import install_line
from guardtrain.tracking.settings import LoggerSettings
from guardtrain.tracking.tracker import TrackedWork, Tracker, worded

_EXTRAS = {"wandb": "", "tensorboard": "tracking", "mlflow": "tracking"}


@contextmanager
def track(
    settings: LoggerSettings, work: TrackedWork, csv: Path | None, say: Callable[[str], None]
) -> Iterator[Tracker]:
    """A tracker that is closed whatever happens.

    Args:
        settings: what is wanted.
        work: what is tracked.
        csv: the losses of training go to `csv/logs`, but with `logger=none`; None for nowhere.
        say: tells the user, a line a call.

    Raises:
        ConfigError: a package that is missing.
    """
    require_tracker(settings)
    try:
        tracker = _tracker(settings)(settings, work, say)
    except Exception as error:  # as in `log`
        say(f"this is not tracked ({settings.kind}): {worded(error)}")
        tracker = Tracker(settings, work, say)
    if settings.kind != "none" and csv is not None:
        from lightning.pytorch.loggers import CSVLogger

        tracker.loggers.insert(0, CSVLogger(str(csv), name="logs"))
    try:
        yield tracker
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close()


def _tracker(settings: LoggerSettings) -> type[Tracker]:
    if settings.kind == "wandb":
        from guardtrain.tracking.wandb_tracker import WandbTracker

        return WandbTracker
    if settings.kind == "tensorboard":
        from guardtrain.tracking.tensorboard_tracker import TensorBoardTracker

        return TensorBoardTracker
    if settings.kind == "mlflow":
        from guardtrain.tracking.mlflow_tracker import MLflowTracker

        return MLflowTracker
    return Tracker


def require_tracker(settings: LoggerSettings) -> None:
    """Refuse a tracker whose package is missing, before anything else is done.

    Raises:
        ConfigError: with the line that installs it.
    """
    extra = _EXTRAS.get(settings.kind)
    if extra is not None and find_spec(settings.kind) is None:
        raise ConfigError(
            f"logger={settings.kind} needs the package {settings.kind}, which is not installed: "
            f"{install_line(extra)}, or take logger=csv."
        )
    if settings.kind == "wandb" and "torch" not in sys.modules:
        # its data classes are looked up among all modules: after torch, which brings thousands, that takes a second
        with suppress(ImportError):
            importlib.import_module("wandb.sdk.launch")
