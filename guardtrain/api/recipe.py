"""From the training sections of a config to a recipe, and to the plain data that resume keys are made of."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.config import PRECOMPUTED, CurveConfig, TrainConfig
from guardtrain.config_checks import build, plain
from guardtrain.errors import ConfigError
from guardtrain.imports import import_quickly

if TYPE_CHECKING:
    from guardtrain.training.recipe import TrainingRecipe


def each_head(settings: CurveConfig) -> list[CurveConfig]:
    """The config of a curve once for each of its heads: `head` is one, or a mapping of names to several.

    Raises:
        ConfigError: a mapping of which nothing is a head.
    """
    if "_target_" in settings.head:
        return [settings]
    nodes = {name: node for name, node in settings.head.items() if isinstance(node, dict) and "_target_" in node}
    if not nodes:
        raise ConfigError(
            f"head must name a head by its _target_, or be a mapping of names to such heads; got {settings.head!r}. "
            "Choose one by its name, such as head=linear."
        )
    if strange := [name for name, node in settings.head.items() if name not in nodes and node is not None]:
        one = next(iter(nodes))
        raise ConfigError(
            f"There is no setting 'head.{strange[0]}': head holds several ({', '.join(nodes)}), and a setting belongs "
            f"to one of them, such as head.{one}.{strange[0]}=…; or choose one head: head={one} head.{strange[0]}=…"
        )
    return [replace(settings, head=node) for node in nodes.values()]


def build_recipe(settings: CurveConfig | TrainConfig) -> TrainingRecipe:
    """Head, loss, optimizer, selection and trainer of a config; torch's threads are set on the way.

    Raises:
        ConfigError: a setting that is wrong, several heads, or prompts that this encoder cannot read.
    """
    if "_target_" not in settings.head:
        raise ConfigError(
            f"head holds several ({', '.join(settings.head)}), which a curve alone draws. Choose one: "
            f"head={next(iter(settings.head), 'linear')}"
        )
    import_quickly("lightning", "pandas")
    head = build(settings.head, "head")

    import torch

    from guardtrain.training.recipe import TrainingRecipe

    if settings.trainer.threads:
        torch.set_num_threads(settings.trainer.threads)
    if getattr(head, "prompts", None):
        head = _anchored(head, settings)
    return TrainingRecipe(head, settings.loss, settings.optimizer, settings.selection, settings.trainer)


def _anchored(head: Any, settings: CurveConfig | TrainConfig) -> Any:
    """The head with its prompts embedded by the run's own encoder."""
    if settings.encoder.family == PRECOMPUTED:
        raise ConfigError(
            f"The head '{head.name}' starts from prompts, and encoder={PRECOMPUTED} can read none. Give the prompts' "
            "embeddings (head.text.file=FILE.npy head.text.safe=[] head.text.unsafe=[]), or take a head without text."
        )
    from guardtrain.encoders import load_encoder
    from guardtrain.heads.anchors import text_anchors

    return head.anchored(text_anchors(load_encoder(settings.encoder).encode_text, head.prompts))


def recipe_settings(settings: CurveConfig | TrainConfig, recipe: TrainingRecipe) -> dict[str, Any]:
    """Return what of a recipe changes the numbers, as plain data, without settings that this recipe does not use."""
    optimizer, selection = plain(settings.optimizer), plain(settings.selection)
    used: tuple[str, ...] = (
        ("iterations", "tolerance") if recipe.full_batch else ("lr", "weight_decay", "batch_size", "steps")
    )
    if recipe.optimizer.noise:  # without it runs keep the keys that they had before there was any
        used += ("noise",)
    kind = "lbfgs" if recipe.full_batch else "adamw"
    chosen = ("method", "folds", "smallest", "rule", "l2") if recipe.full_batch else tuple(selection)
    if recipe.direct:
        used, kind, chosen = (), "none", ("method", "folds", "smallest", "l2")
    if settings.selection.method == "fixed":
        chosen = ("method",)
    judged = {"judge": "auroc"} if recipe.linear_optimum and settings.selection.method != "fixed" else {}
    loss = plain(recipe.loss)  # with what the head has settled
    if recipe.direct:
        del loss["pairs"]
    else:
        # what is not used changes nothing; runs made before there was contrastive and gradient keep their keys
        pairs = recipe.loss.pairs
        unused = set() if pairs.contrastive else {"contrastive", "temperature"}
        unused |= set() if pairs.gradient else {"gradient"}
        loss["pairs"] = {key: value for key, value in loss["pairs"].items() if key not in unused}
    head = plain(settings.head)
    if file := (head.get("text") or {}).get("file"):
        head["text"]["file"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()  # another file is another head
    return {
        "head": head,
        "loss": loss,
        "optimizer": {"kind": kind, **{key: optimizer[key] for key in used}},
        "selection": {key: selection[key] for key in chosen} | judged,
    }
