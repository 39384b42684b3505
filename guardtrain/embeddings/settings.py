"""The settings of where embedding works."""

from __future__ import annotations

from dataclasses import dataclass

from guardtrain.errors import ConfigError


@dataclass
class EngineSettings:
    """Where `embed` works.

    Args:
        name: `local`: in this process; `ray`: in processes of Ray, on this machine or on a cluster.
        actors: ray: how many processes, with an encoder each; null for as many as there is room for.
        cpus_per_actor: ray: processors of each, which read, decode and, where it has no GPU, embed.
        gpus_per_actor: ray: GPUs of each; 0.5 for two on one.
        address: ray: of a cluster: `auto`, `HOST:PORT` or `ray://HOST:10001`; null starts Ray on this machine.
    """

    name: str = "local"
    actors: int | None = None
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray"):
            raise ConfigError(f"engine.name is '{self.name}'; allowed: local, ray.")
        if self.actors is not None and self.actors < 1:
            raise ConfigError(f"engine.actors is {self.actors}; it must be at least 1, or null.")
        if not 0 < self.cpus_per_actor < float("inf") or not 0 <= self.gpus_per_actor < float("inf"):
            raise ConfigError("engine.cpus_per_actor must be above 0, engine.gpus_per_actor 0 or above.")
        for name in ("actors", "cpus_per_actor", "gpus_per_actor", "address"):
            if self.name == "local" and getattr(self, name) != getattr(EngineSettings, name):
                raise ConfigError(f"engine.{name} is a setting of engine=ray; add that.")
