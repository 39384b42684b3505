"""Settings of `logger=`."""

from __future__ import annotations

from dataclasses import dataclass

from guardtrain.errors import ConfigError

KINDS = ("csv", "wandb", "tensorboard", "mlflow", "none")
MODES = ("auto", "offline", "online", "disabled")


@dataclass
class LoggerSettings:
    """Where training is logged and results are tracked.

    Keys and passwords are no settings: W&B and MLflow read theirs from the environment or from their own files.

    Args:
        kind: `csv`, `wandb`, `tensorboard` or `mlflow` (which write the CSV, too), or `none`.
        project: W&B project, MLflow experiment.
        entity: W&B user or team; null for the key's own.
        group: W&B group; null for none, or in a sweep for the sweep's folder.
        mode: W&B mode: `offline` (sync later with `wandb sync`), `online`, `disabled`, or `auto`: what `WANDB_MODE`
            says, else online where there is a key. Without a key or a network it is offline anyway.
        uri: MLflow's tracking server or folder; null for `MLFLOW_TRACKING_URI`, else `mlruns` in the output folder.
    """

    kind: str = "csv"
    project: str = "guardtrain"
    entity: str | None = None
    group: str | None = None
    mode: str = "auto"
    uri: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("mode", MODES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"logger.{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")
