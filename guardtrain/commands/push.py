"""`guardtrain push`: a guard → a repository on the Hugging Face hub."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from guardtrain.config import PushConfig
from guardtrain.config_checks import typed

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Push what `config` (see `PushConfig`) describes."""
    settings = typed(config, PushConfig)
    from guardtrain.guards.hub import push

    url = push(
        settings.guard,
        settings.repo,
        private=settings.private,
        revision=settings.revision,
        message=settings.message,
        weights=settings.weights,
        checkpoint=settings.checkpoint,
        say=log.info,
    )
    log.info("pushed    %s", url)
