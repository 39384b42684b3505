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


def recipe_settings(settings: CurveConfig | TrainConfig, recipe: TrainingRecipe) -> dict[str, Any]:
    """What of a recipe changes the numbers, as plain data; settings that this recipe does not use are left out."""
    optimizer, selection = plain(settings.optimizer), plain(settings.selection)
    used = ("iterations", "tolerance") if recipe.full_batch else ("lr", "weight_decay", "batch_size", "steps")
    chosen = ("method", "folds", "l2") if recipe.full_batch else tuple(selection)
    if settings.selection.method == "fixed":
        chosen = ("method",)
    return {
        "head": plain(settings.head),
        "loss": plain(settings.loss),
        "optimizer": {"kind": "lbfgs" if recipe.full_batch else "adamw", **{key: optimizer[key] for key in used}},
        "selection": {key: selection[key] for key in chosen},
    }
