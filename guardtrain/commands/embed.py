"""`guardtrain embed`: images (or texts) of a source → a store."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from guardtrain.commands.data import embed_source, read_labels, setting_of
from guardtrain.config import PRECOMPUTED, EmbedConfig
from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError
from guardtrain.sources.unclear import settings_told

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Embed what `config` (see `EmbedConfig`) describes; shards that are there are not computed again."""
    settings = typed(config, EmbedConfig)
    source = build(settings.source, "source")
    if hasattr(source, "embeddings"):
        raise ConfigError("source brings its embeddings already; use it as data.real, data.pairs or data.test.NAME.")
    if settings.encoder.family == PRECOMPUTED:
        raise ConfigError(f"encoder={PRECOMPUTED} embeds nothing; choose another.")
    if settings.input == "text" and settings.encoder.family != "open_clip":
        raise ConfigError(
            "input=text needs an encoder that reads text: only CLIP models (encoder.family=open_clip) do."
        )
    options: dict[str, Any] = {
        "shard_size": settings.shard_size,
        "storage": settings.storage,
        "workers": settings.workers,
        "text": settings.text_column if settings.input == "text" else None,
        "on_error": settings.on_error,
        "retry": settings.retry,
    }
    if settings.engine.name == "ray":
        from guardtrain.embeddings.ray_engine import RayEngine

        ray = settings.engine
        options["engine"] = RayEngine(ray.actors, ray.cpus_per_actor, ray.gpus_per_actor, ray.address)
    read_labels(source, "source", log.info)
    if settings.out is None:
        embed_source(source, "source", settings.encoder, settings.cache_dir, log.info, **options)
        return

    from guardtrain.embeddings.extraction import extract

    started = time.perf_counter()
    with settings_told(setting_of("source")):
        store = extract(source, settings.encoder, Path(settings.out), **options)
    seconds = time.perf_counter() - started
    count = len(store)
    log.info("%s: %s embeddings in %.1f s (%.0f a second)", settings.out, f"{count:,}", seconds, count / seconds)
