"""A tracker: one run of a command at W&B, MLflow or TensorBoard, gone on with when the command is started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.files import replace_file
from guardtrain.tracking.settings import LoggerSettings

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch.loggers import Logger

    from guardtrain.tracking.artefacts import Artefact

TRACKING_FILE = "tracking.json"


@dataclass(frozen=True)
class TrackedWork:
    """Work that is tracked as one run.

    Args:
        kind: `curve`, `train`, `finetune` or `export`.
        name: shown for it.
        folder: of the work's own: it keeps the run's id and what is written before it is sent.
        key: of what the work is about; the same key in the same folder goes on with the same run.
        config: settings, as plain data without secrets.
        group: of runs that belong together; None for none.
        losses: whether the tracker also gets the losses of training.
    """

    kind: str
    name: str
    folder: Path
    key: str
    config: Mapping[str, Any]
    group: str | None = None
    losses: bool = False


@dataclass
class Outcome:
    """The products of a command, and what they were made from.

    Args:
        uses, makes: artefacts.
        tables: by name.
        figures: image files.
        summary: single numbers and words by name.
    """

    uses: Sequence[Artefact] = ()
    makes: Sequence[Artefact] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)

    def lineage(self) -> dict[str, Any]:
        """`uses` and `makes` as plain data."""
        return {"uses": [a.described() for a in self.uses], "makes": [a.described() for a in self.makes]}


class Tracker:
    """Tracks nothing; `ServiceTracker` and its subclasses do.

    Args:
        settings: what is wanted.
        work: what is tracked.
        say: tells the user, a line a call.
    """

    title = ""

    def __init__(self, settings: LoggerSettings, work: TrackedWork, say: Callable[[str], None]) -> None:
        self.settings, self.work, self.say = settings, work, say
        self.loggers: list[Logger] = []  # for Lightning's Trainer

    def log(self, outcome: Callable[[], Outcome]) -> None:
        """Keep what the work came to. Tracking never fails the work: what goes wrong is said in a line.

        Args:
            outcome: makes it; not called where nothing is tracked.
        """

    def close(self, *, failed: bool = False) -> None:
        """End the run."""

    def kept_id(self) -> str | None:
        """The id of this work's run, if it was started before."""
        found = _kept(self.work.folder).get(self.settings.kind, {}).get(self.work.key, {})
        same = found.get("project") == self.settings.project and found.get("entity") == self.settings.entity
        return str(found["id"]) if same else None

    def keep_id(self, number: str) -> None:
        """Note the run's id in the work's folder."""
        kept = _kept(self.work.folder)
        about = {"id": number, "project": self.settings.project, "entity": self.settings.entity}
        # the newest last: who looks for the run of a folder takes that
        others = {key: value for key, value in kept.get(self.settings.kind, {}).items() if key != self.work.key}
        kept[self.settings.kind] = {**others, self.work.key: about}
        text = json.dumps(kept, indent=1)
        replace_file(self.work.folder / TRACKING_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def _kept(folder: Path) -> dict[str, Any]:
    try:
        kept = json.loads((folder / TRACKING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def tracked_run(folder: Path, kind: str) -> str | None:
    """The id of the run at `kind` that the work in `folder` was last tracked as; None where there is none."""
    runs = list(_kept(folder).get(kind, {}).values())
    return str(runs[-1]["id"]) if runs else None


class ServiceTracker(Tracker):
    """Base of the trackers of services; each says how it keeps an `Outcome`."""

    def log(self, outcome: Callable[[], Outcome]) -> None:
        try:
            self._log(outcome())
        except Exception as error:  # of a library, its service or a server: all of them have errors of their own
            self.say(f"{self.title} has not got all of this: {worded(error)}")

    def _log(self, outcome: Outcome) -> None:
        raise NotImplementedError


def worded(error: Exception) -> str:
    """Return an error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
