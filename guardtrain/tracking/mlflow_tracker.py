"""MLflow, through Lightning's logger: a server, or a folder where there is none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import numeric

from lightning.pytorch.loggers import MLFlowLogger

from guardtrain.tracking.network import reachable
from guardtrain.tracking.settings import LoggerSettings
from guardtrain.tracking.tracker import Outcome, ServiceTracker, TrackedWork

FOLDER = "mlruns"
_SERVICES = ("databricks", "databricks-uc")  # what MLflow knows by a word


class MLflowTracker(ServiceTracker):
    """One MLflow run, with figures, tables and lineage among its artifacts."""

    title = "MLflow"

    def __init__(self, settings: LoggerSettings, work: TrackedWork, say: Callable[[str], None]) -> None:
        super().__init__(settings, work, say)
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = settings.uri or given or ""
        if self.uri.startswith("http") and not reachable(self.uri):
            say(f"MLflow    {self.uri} cannot be reached; this run is kept in {work.folder / FOLDER}")
            self.uri = ""
        folder = (work.folder / FOLDER).absolute()
        self.uri = self.uri or folder.as_uri()
        if ":" not in self.uri and self.uri not in _SERVICES:
            self.uri = Path(self.uri).absolute().as_uri()  # a folder
        if self.uri.startswith("file:"):
            # MLflow wants a database today; a folder needs none, and is what can be copied
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        kept = self.kept_id()
        self.logger = self._logger(kept)
        try:
            number = self.logger.run_id
        except Exception:  # the run is not at this server, or was deleted there
            kept, self.logger = None, self._logger(None)
            number = self.logger.run_id
        if not given:  # MLflow notes its address in the environment, where the next job of a sweep would read it
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        self.keep_id(str(number))
        self.client: Any = self.logger.experiment
        if kept is None:
            self.logger.log_hyperparams(dict(work.config))  # MLflow lets nobody change them
        self.client.log_dict(number, dict(work.config), "config.json")
        if work.losses:
            self.loggers.append(self.logger)

    def _logger(self, number: str | None) -> MLFlowLogger:
        work = self.work
        tags = {"kind": work.kind, **({"group": work.group} if work.group else {})}
        return MLFlowLogger(
            self.settings.project, run_name=work.name, tracking_uri=self.uri, run_id=number, tags=tags, log_model=False
        )

    def _log(self, outcome: Outcome) -> None:
        number = self.logger.run_id
        self.client.log_dict(number, outcome.lineage(), "lineage.json")
        for name, frame in outcome.tables.items():
            self.client.log_text(number, frame.to_csv(index=False), f"{name}.csv")
        for path in outcome.figures:
            self.client.log_artifact(number, str(path))
        for artefact in outcome.makes:
            for name, path in artefact.files.items():
                self.client.log_artifact(number, str(path), "/".join([artefact.kind, *name.split("/")[:-1]]))
        numbers = {metric_name(name): float(v) for name, v in outcome.summary.items() if isinstance(v, int | float)}
        self.logger.log_metrics(numbers)

    def close(self, *, failed: bool = False) -> None:
        try:
            self.client.set_terminated(self.logger.run_id, "FAILED" if failed else "FINISHED")
        except Exception as error:  # of the server
            self.say(f"MLflow has not heard the end of this: {type(error).__name__}")
            return
        self.say(f"MLflow    {self.uri}, run {self.logger.run_id}")


def metric_name(name: str) -> str:
    """A metric's name in the letters that MLflow takes; without them all ratios would be one metric.

    >>> metric_name("auroc/pairs ½ (replace)"), metric_name("auroc/2× pairs ¼")
    ('auroc/pairs 0.5 replace', 'auroc/2 pairs 0.25')
    """
    spelled = "".join(
        f"{value:g}" if (value := numeric(one, None)) is not None and not one.isascii() else one for one in name
    )
    return re.sub(r"[^\w./ -]", "", spelled, flags=re.ASCII)
