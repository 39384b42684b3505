"""LoRA adapters on an image tower, by peft: where they can be put, putting them there, and merging them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from guardtrain.errors import ConfigError, EncoderError
from guardtrain.installing import install_line
from guardtrain.training.finetuning.attention import OpenAttention
from guardtrain.training.finetuning.settings import LoraSettings

_NAMED = 6  # layers that a message names


def require_peft() -> None:
    """Raises ConfigError where peft is not installed."""
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise ConfigError(f"LoRA needs the package peft, which is not installed: {install_line('lora')}")


class Adapters:
    """Adapters in the layers of an image tower, which is changed in place until `merge`.

    Args:
        tower: the module whose layers are adapted, frozen and in eval mode.
        features: a differentiable function of the pixels `(B, 3, H, W)` that goes through the tower, for finding out
            which layers take part.
        pixels: `(1, 3, H, W)` to try it with.
        settings: rank, scale, dropout and targets.
        seed: draws the adapters' first weights.

    Attributes:
        names: of the adapted layers, in the tower with its attentions opened.

    Raises:
        ConfigError: no peft, or no layer that an adapter can reach has a name that `settings.targets` finds.
    """

    def __init__(
        self,
        tower: nn.Module,
        features: Callable[[Tensor], Tensor],
        pixels: Tensor,
        settings: LoraSettings,
        *,
        seed: int,
    ) -> None:
        require_peft()
        from peft import LoraConfig, get_peft_model

        self._fused = _open_attentions(tower)
        self._tower = tower
        reachable = reachable_layers(tower, features, pixels)
        pattern = re.compile(settings.targets or "")
        self.names = [name for name in reachable if pattern.search(name)]
        if not self.names:
            shown = ", ".join(reachable[:_NAMED]) + (f" and {len(reachable) - _NAMED} more" * (len(reachable) > _NAMED))
            raise ConfigError(
                f"lora.targets='{settings.targets}' finds none of the {len(reachable)} layers that adapters can be put "
                f"on: {shown}."
            )
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            lora_dropout=settings.dropout,
            target_modules="|".join(re.escape(name) for name in self.names),  # a whole name, unlike a list's endings
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._peft: Any = get_peft_model(tower, config)
        tower.eval()  # batch norms keep their statistics
        for name, module in tower.named_modules():
            if "lora_dropout" in name:
                module.train()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapters' weights by name: all of the tower that is trained."""
        return {name: p for name, p in self._tower.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapters to the weights they belong to; the tower is then of the layers it had at first."""
        self._peft.merge_and_unload(safe_merge=True)
        for name, fused in self._fused.items():
            opened = self._tower.get_submodule(name)
            assert isinstance(opened, OpenAttention)
            opened.close_into(fused)
            _replace(self._tower, name, fused)


def reachable_layers(tower: nn.Module, features: Callable[[Tensor], Tensor], pixels: Tensor) -> list[str]:
    """Names of the linear and (ungrouped) convolutional layers that an adapter would have an effect on.

    Such a layer is called (some modules only lend their weights to a function, as CLIP-ResNet's attention pooling
    does), and the embedding has a gradient in it.

    Args:
        tower, features, pixels: see `Adapters`.
    """
    layers = {name: module for name, module in tower.named_modules() if _adaptable(module)}
    called: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))  # type: ignore[misc]
        for name, module in layers.items()
    ]
    weights = [module.weight for module in layers.values()]
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        found = torch.autograd.grad(features(pixels).sum(), weights, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
    return [name for name, slope in zip(layers, found, strict=True) if slope is not None and name in called]


def require_merged(before: Tensor, after: Tensor) -> None:
    """Refuse a merged encoder that gives other embeddings than the adapted one.

    Args:
        before, after: `(B, D)` embeddings of the same images.

    Raises:
        EncoderError: they differ by more than rounding.
    """
    error = float((before - after).norm() / before.norm().clamp_min(1e-12))
    if not error < 1e-3:
        raise EncoderError(
            f"The merged encoder gives other embeddings than the adapted one (relative difference {error:.1g}). It is "
            "not kept; please report this with the encoder's name."
        )


def _adaptable(module: nn.Module) -> bool:
    """A layer with a forward pass of its own would compute something else than the adapter that stands in for it."""
    if isinstance(module, nn.Conv2d):
        plain = type(module).forward is nn.Conv2d.forward
        return plain and module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def _open_attentions(tower: nn.Module) -> dict[str, nn.MultiheadAttention]:
    """Replace the attentions in `tower` by open ones; what was replaced, by name."""
    fused: dict[str, nn.MultiheadAttention] = {}
    for name, module in list(tower.named_modules()):
        if name and isinstance(module, nn.MultiheadAttention) and OpenAttention.can_open(module):
            fused[name] = module
            _replace(tower, name, OpenAttention(module))
    return fused


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(root.get_submodule(parent), own, module)
