"""From the training sections of a config to a recipe, and to the plain data that resume keys are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guardtrain.config import CurveConfig, TrainConfig, build, plain

if TYPE_CHECKING:
    from guardtrain.training.fit import TrainingRecipe


def build_recipe(settings: CurveConfig | TrainConfig) -> TrainingRecipe:
    """Head, loss, optimizer, selection and trainer of a config; torch's threads are set on the way."""
    head = build(settings.head, "head")

    import torch

    from guardtrain.training.fit import TrainingRecipe

    if settings.trainer.threads:
        torch.set_num_threads(settings.trainer.threads)
    return TrainingRecipe(head, settings.loss, settings.optimizer, settings.selection, settings.trainer)


def recipe_settings(settings: CurveConfig | TrainConfig) -> dict[str, Any]:
    """What of a recipe changes the numbers, as plain data."""
    selection = plain(settings.selection)
    if settings.selection.method == "fixed":
        selection = {"method": "fixed"}  # the rest is not used
    return {
        "head": plain(settings.head),
        "loss": plain(settings.loss),
        "optimizer": plain(settings.optimizer),
        "selection": selection,
    }
