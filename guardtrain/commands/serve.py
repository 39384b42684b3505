"""`guardtrain serve`: a guard as a web service."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from guardtrain.config import ServeConfig
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError
from guardtrain.installing import install_line

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Serve the guard that `config` (see `ServeConfig`) names, until SIGINT or SIGTERM."""
    settings = typed(config, ServeConfig)
    try:
        from guardtrain.guards.serving.app import create_app
        from guardtrain.guards.serving.running import serve
    except ImportError as error:
        raise ConfigError(
            f"The server needs a package that is not here ({error.name}): {install_line('serve')}."
        ) from error

    from guardtrain.guards.base_rates import holding
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.predicting import ImageJudge
    from guardtrain.guards.serving.service import GuardService

    guard = Guard.load(
        settings.guard,
        revision=settings.revision,
        checkpoint=settings.checkpoint,
        device=settings.device,
        trusted_heads=settings.trusted_heads,
        prior=settings.prior,
    )
    judge = ImageJudge(guard, round(settings.max_megapixels * 1e6), settings.frames)
    judge.warm_up()
    service = GuardService(judge, settings)

    def started(address: str) -> None:
        log.info("guard     %s on %s%s", guard.name, guard.spec.label, holding(guard.prior))
        log.info("points    %s (default: %s)", ", ".join(guard.points), guard.default_point)
        log.info("serving   %s  (POST /v1/predict; /v1/guard /metrics /readyz /openapi.json)", address)

    serve(create_app(service), service, started)
    log.info("ended; all that was taken is answered")
