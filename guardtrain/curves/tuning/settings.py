"""What a user can set about a search; light, so that the config schema can import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guardtrain.curves.results import LOWER_IS_BETTER, METRICS
from guardtrain.errors import ConfigError

LOG_LOSS = "log_loss"
SAMPLERS = ("tpe", "random", "grid")
DEFAULT_SPACE = {"loss.l2": {"low": 1e-3, "high": 1e3, "log": True}}
AUTO, FOLDS, VALIDATION = "auto", "folds", "validation"


@dataclass
class TuneSettings:
    """How hyper-parameters are searched for.

    Args:
        space: what is searched: setting -> `{low, high}` (with `log: true` or `step`), or `{choices: [...]}`; a config
            group may have choices, too, such as `head: {choices: [linear, mlp]}`. `when: {head: mlp}` asks for a
            parameter only there. null is `loss.l2` from 0.001 to 1000.
        sampler: `tpe`, `random`, or `grid`: all choices, and of each range `points` values (10).
        sampler_seed: of the sampler.
        trials: how many, those of earlier starts and of other processes among them.
        batch: how many are asked for and trained at once.
        timeout: seconds after which this start asks for no more; null for no limit.
        jobs: processes on this machine that work on the study; each trains batches of its own.
        worker: work on trials alone and leave the table and the best run to another process.
        metric: what is searched for: `log_loss` or a metric of the results table, such as `auroc`.
        score: on which images: `folds`: cross-validation inside the budget; `validation`: images of the pools that no
            trial trains on (those whose split says val, if there are any); `auto`: folds, and validation where the
            space holds `mixture.` settings. Where there are images of both pools they are judged apart, and the score
            is the mean of the two. Never a test set.
        seeds: how many seeds, from mixture.seed, each trial is trained with; its score is their mean.
        show: rows of the table that is printed.
    """

    space: Any = None  # a mapping; typed as one, Hydra lets nobody add to it
    sampler: str = "tpe"
    sampler_seed: int = 0
    trials: int = 64
    batch: int = 16
    timeout: float | None = None
    jobs: int = 1
    worker: bool = False
    metric: str = LOG_LOSS
    score: str = AUTO
    seeds: int = 3
    show: int = 10

    def __post_init__(self) -> None:
        allowed = {
            "sampler": SAMPLERS,
            "metric": (LOG_LOSS, *METRICS),
            "score": (AUTO, FOLDS, VALIDATION),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} is '{getattr(self, name)}'; allowed: {', '.join(values)}.")
        for name in ("trials", "batch", "jobs", "seeds", "show"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(f"timeout is {self.timeout:g} seconds; it must be above 0, or null.")


def lower_is_better(metric: str) -> bool:
    """Whether a search for `metric` goes down."""
    return metric == LOG_LOSS or metric in LOWER_IS_BETTER
