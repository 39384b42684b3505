"""From config to recipe, and to what resume keys are made of."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from guardtrain.api.recipe import build_recipe, each_head, recipe_settings
from guardtrain.config import CurveConfig, conf_dir, register_schemas
from guardtrain.config_checks import typed
from guardtrain.errors import ConfigError

LINEAR = {"mass", "centring", "logistic", "offset"}  # what keys were made of before there were more pair losses


def _made(*overrides: str):
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        one = [] if any(text.startswith("head=") for text in overrides) else ["head=linear"]
        settings = typed(compose("curve", overrides=[*one, *overrides]), CurveConfig)
    recipe = build_recipe(settings)
    return recipe, recipe_settings(settings, recipe)


@pytest.mark.parametrize("overrides", [[], ["loss=bce"], ["loss=bce", "head=mlp"], ["head=prototypes"]], ids=str)
def test_pair_losses_that_are_off_leave_resume_keys_as_they_were(overrides: list[str]) -> None:
    recipe, settings = _made(*overrides)
    assert set(settings["loss"]["pairs"]) == LINEAR
    assert recipe.loss.pairs.gradient == 0
    assert _made(*overrides, "loss.pairs.temperature=0.7")[1] == settings


def test_pair_losses_that_are_on_change_the_key() -> None:
    base = ["head=mlp", "loss=bce"]
    seen = [_made(*base)[1]]
    for more in (
        ["loss.pairs.gradient=1"],
        ["loss.pairs.contrastive=1"],
        ["loss.pairs.contrastive=1", "loss.pairs.temperature=0.7"],
    ):
        settings = _made(*base, *more)[1]
        assert settings not in seen
        seen.append(settings)


def test_the_pair_aware_loss_leaves_gradient_supervision_to_the_head() -> None:
    recipe, settings = _made("head=mlp")
    assert recipe.loss.pairs.gradient == 1
    assert settings == _made("head=mlp", "loss.pairs.gradient=1")[1]
    assert _made("head=mlp", "optimizer.kind=lbfgs")[0].loss.pairs.gradient == 0


@pytest.mark.parametrize("setting", ["contrastive", "gradient"])
def test_a_linear_head_refuses_what_it_cannot_use(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.pairs\.{setting} is 1, and the head 'linear'"):
        _made(f"loss.pairs.{setting}=1")


def test_noise_on_embeddings_changes_the_key_and_none_leaves_it_as_it_was() -> None:
    _, without = _made("head=mlp")
    _, noisy = _made("head=mlp", "optimizer.noise=1")
    assert set(without["optimizer"]) == {"kind", "lr", "weight_decay", "batch_size", "steps"}
    assert noisy["optimizer"] == without["optimizer"] | {"noise": 1.0}


def test_a_curve_has_a_recipe_for_each_of_its_heads() -> None:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = typed(compose("curve", overrides=["head.mlp.hidden=[32]"]), CurveConfig)
        of_one = typed(compose("curve", overrides=["head=mlp", "head.hidden=[32]"]), CurveConfig)
        nothing = typed(compose("curve", overrides=["head=linear", "~head._target_"]), CurveConfig)
    heads = each_head(settings)
    assert [build_recipe(own).label for own in heads] == ["mlp (pair-aware)", "linear (pair-aware)", "knn"]
    alone = recipe_settings(of_one, build_recipe(of_one))
    assert recipe_settings(heads[0], build_recipe(heads[0])) == alone, "a run's key does not know of other heads"
    assert [own.head for own in each_head(of_one)] == [of_one.head]
    with pytest.raises(ConfigError, match=r"head holds several .mlp, linear, knn., .*Choose one: head=mlp"):
        build_recipe(settings)
    with pytest.raises(ConfigError, match="Choose one by its name, such as head=linear"):
        each_head(nothing)
