"""The Ray that a sweep's jobs go to: connected before they do, so that jobs which no machine can take are told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from guardtrain.embeddings.ray_engine import no_room, room, start
from guardtrain.errors import EngineError

_SETTINGS = "hydra.launcher.ray.remote.num_cpus and .num_gpus"
_STORE_BYTES = 78_643_200  # what the launcher's plugin starts Ray with


def connect(settings: DictConfig, say: Callable[[str], None]) -> None:
    """Connect to a launcher's Ray, which its plugin then uses; a cluster that has no room may grow, this machine not.

    Args:
        settings: of the launcher: `init`, what Ray is started or found by, and `remote`, what a job is given.
        say: tells the user that jobs wait.

    Raises:
        EngineError: no Ray there, or jobs for which this machine has no room.
    """
    import ray

    init, job = (
        cast(dict[str, Any], OmegaConf.to_container(settings[name], resolve=True)) for name in ("init", "remote")
    )
    address = init.get("address")
    if not ray.is_initialized():
        start(ray, address, "hydra.launcher.ray.init.address", **{"object_store_memory": _STORE_BYTES, **init})
    cpus, gpus = (
        float(value) if (value := job.get(name)) is not None else default
        for name, default in (("num_cpus", 1), ("num_gpus", 0))
    )
    if room(ray, cpus, gpus):
        return
    lacking = no_room(ray, "a job", cpus, gpus)
    if address is None:
        raise EngineError(f"{lacking} Set {_SETTINGS}.")
    say(f"{lacking} Jobs wait until one comes; {_SETTINGS} ask for less.")
