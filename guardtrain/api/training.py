"""Heads, and one head trained on one mixture."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.api.recipe import build_recipe, recipe_settings
from guardtrain.api.settings import chosen, curve_settings, given, head_node, names_of
from guardtrain.config import PRECOMPUTED, CurveConfig, TrainConfig
from guardtrain.config_checks import build, plain
from guardtrain.encoders.spec import LOADABLE, EncoderSettings
from guardtrain.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.engine import Run
    from guardtrain.guards.parts import TrainedRun
    from guardtrain.heads import HeadBank
    from guardtrain.training.fitted import FittedBank
    from guardtrain.training.pools import Pools
    from guardtrain.training.recipe import TrainingRecipe

    Training = tuple[CurveConfig | TrainConfig, TrainingRecipe]
    CurveTraining = tuple[CurveConfig, TrainingRecipe]


def list_heads(pattern: str = "*") -> list[str]:
    """The names that `create_head` knows, those that fit a pattern such as `"tip*"`."""
    return names_of("head", pattern, having="_target_")


def create_head(name: str, **settings: Any) -> Any:
    """The head of that name: what is trained, not yet trained.

    Args:
        name: of `list_heads()`.
        settings: of `conf/head`, such as `hidden=[64]`.

    Raises:
        ConfigError: an unknown name or setting.

    >>> create_head("mlp", hidden=[8]).hidden
    [8]
    """
    return build(curve_settings(chosen("head", name, settings)).head, "head")


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head trained on a mixture, with what it was trained and tested on.

    Args:
        pools: what it drew from.
        run: its mixture and resume key.
        bank: the head, a bank of one.
        rows: its test metrics, a row a test set and slice, as in a results table.
        about: its settings and recipe.
        chosen: hyper-parameters as used.
        notes: what the card of its guard says besides.
        picked: how it was chosen among the runs of a curve; empty where it was not.
    """

    pools: Pools
    run: Run
    bank: HeadBank
    rows: pd.DataFrame
    about: Training
    chosen: Mapping[str, float]
    notes: tuple[str, ...] = ()
    picked: Mapping[str, Any] | None = None

    @property
    def metrics(self) -> pd.DataFrame:
        """A row a test set: its size, then every metric."""
        from guardtrain.curves.results import METRICS

        whole = self.rows[self.rows["slice_kind"] == "all"]
        return whole.set_index("test")[["n_test", "n_unsafe", "n_pairs", *METRICS]]

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """(N,) float32 probabilities of being unsafe for embeddings (N, D) of the pools' encoder, not calibrated."""
        import torch

        with torch.inference_mode():
            logits = self.bank(torch.from_numpy(np.asarray(embeddings, dtype=np.float32)))
        return np.asarray(torch.sigmoid(logits)[0].numpy())

    def described(self, results: pd.DataFrame | None = None, *, neighbours: bool = False) -> TrainedRun:
        """Describe it as a guard needs it.

        Args:
            results: a table that has its rows; None for `rows`.
            neighbours: whether the training embeddings are wanted.
        """
        from guardtrain.guards.from_run import trained_run

        made, recipe = self.about
        out = trained_run(
            self.pools,
            self.run,
            self.bank,
            plain(made.head),
            label=recipe.label,
            chosen=self.chosen,
            recipe=recipe_settings(made, recipe),
            results=self.rows if results is None else results,
            data={name: plain(origin) for name, origin in made.data.about.items()},
            neighbours=neighbours,
            notes=self.notes,
        )
        return replace(out, training={**out.training, "picked": dict(self.picked)}) if self.picked else out


def train_head(
    pools: Pools,
    head: Any = "linear",
    *,
    budget: int,
    ratio: float = 0.0,
    arm: str = "replace",
    control: str = "paired",
    seed: int = 0,
    loss: str | None = None,
    settings: Sequence[str] = (),
) -> TrainedHead:
    """Train one head on one mixture, as `guardtrain train` does.

    Args:
        pools: of `make_pools`.
        head: a name of `list_heads()`, what `create_head` gives, or a head of your own.
        budget: labelled training images.
        ratio: the share of them that are pair images.
        arm: `replace` takes pair images instead of real ones, `add` on top.
        control: `paired`, or a control: `shuffled`, `unpaired`, `balanced`, `real`.
        seed: draws the images and starts the head.
        loss: `pairs` (default) or `bce`.
        settings: further settings as on the command line, such as `"loss.l2=1"`.

    Raises:
        ConfigError, MixtureError: settings that are wrong, or more images than there are.
    """
    from guardtrain.api.fitting import require_mixture
    from guardtrain.curves.engine import plan_single
    from guardtrain.mixtures.settings import MixtureSettings

    mixture = MixtureSettings(budget=budget, ratio=ratio, arm=arm, control=control, seed=seed)
    require_mixture(mixture, pools.supply)
    (about,) = trainings(pools, [head], [*given(loss=loss), *settings])
    made, recipe = about
    return trained(pools, plan_single(pools, plain(mixture), recipe_settings(made, recipe)), about)


def trained(pools: Pools, run: Run, about: Training, *, folder: Path | None = None) -> TrainedHead:
    """Train one run; checkpoints go to `folder` where there is one, so that it can be gone on with."""
    import pandas as pd

    from guardtrain.curves.engine import train_run

    made, recipe = about
    with tempfile.TemporaryDirectory() as aside:
        fitted, rows = train_run(pools, recipe, run, memory_gb=made.memory_gb, checkpoints=folder or Path(aside))
    return TrainedHead(pools, run, fitted.bank, pd.DataFrame(rows), about, used(fitted, about))


def used(fitted: FittedBank, about: Training) -> dict[str, float]:
    """The hyper-parameters of a bank of one, those that its way of training knows."""
    _, recipe = about
    out = {"l2": float(fitted.l2[0])}
    if not (recipe.full_batch or recipe.direct):
        out |= {"lr": float(fitted.lr[0]), "steps": int(fitted.steps[0])}
    return out


def trainings(pools: Pools, heads: Sequence[Any], overrides: Sequence[str]) -> list[CurveTraining]:
    """Settings and recipe of each head on these pools.

    Raises:
        ConfigError: a setting that is wrong, or a head that is none.
    """
    out: list[CurveTraining] = []
    for head in heads:
        named = isinstance(head, str)
        made = curve_settings([*(chosen("head", head, {}) if named else []), *overrides])
        made = replace(made, encoder=_encoder_of(pools), head=made.head if named else head_node(head))
        if "_target_" not in made.head:
            raise ConfigError(f"'{head}' stands for several heads: {', '.join(made.head)}. Give them as a list.")
        out.append((made, build_recipe(made)))
    return out


def _encoder_of(pools: Pools) -> Any:
    """Return the encoder of the embeddings, which embeds prompts and stands in programs, where it can be had.

    Its spec stands for settings: whoever loads it gets exactly that encoder.
    """
    return pools.spec if pools.spec.family in LOADABLE else EncoderSettings(family=PRECOMPUTED)
