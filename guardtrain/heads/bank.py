"""A bank: R heads of one architecture, their parameters stacked so that one tensor program trains them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guardtrain.errors import ConfigError


def batched_affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x @ weight + bias` for each head.

    Args:
        x: `(R, B, D)`.
        weight: `(R, D, H)`.
        bias: `(R, H)`.

    Returns:
        `(R, B, H)`.
    """
    # Written as weightᵀ xᵀ: with few columns a batched product is several times faster this way round.
    return torch.baddbmm(bias[:, :, None], weight.transpose(1, 2), x.transpose(1, 2)).transpose(1, 2)


class HeadBank(nn.Module, ABC):
    """R heads on D-dimensional embeddings; every parameter has shape `(R, ...)`.

    Each head standardises its input by a mean `(D,)` and one scale, learned from its own training images
    (`fit_input`), so that learning rate and weight decay mean the same for every encoder and budget.

    Args:
        heads: R, the number of heads.
        dim: D, the embedding's dimension.
    """

    input_mean: Tensor  # (R, D)
    input_scale: Tensor  # (R,)

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.register_buffer("input_mean", torch.zeros(heads, dim))
        self.register_buffer("input_scale", torch.ones(heads))

    @abstractmethod
    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        """Logits of every head.

        Args:
            x: `(R, B, D)`, rows of their own for each head, or `(N, D)`, the same rows for all.
            step_seed: seeds what is random in training (dropout); None switches it off.

        Returns:
            `(R, B)` or `(R, N)` float32 logits.
        """

    def with_features(self, x: Tensor, step_seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """Logits of every head, and of some rows the features that its last layer makes them from.

        The default is to refuse; heads that learn features override it.

        Args:
            x: `(R, B, D)`.
            step_seed: see `forward`.
            first: from this row on features are given.

        Returns:
            Logits `(R, B)` and features `(R, B - first, H)`.

        Raises:
            ConfigError: the head learns no features.
        """
        raise ConfigError(
            f"{type(self).__name__} learns no features that a contrastive loss could shape. Set "
            "loss.pairs.contrastive=0, or take a head that does (mlp, prototypes, tip_adapter_f)."
        )

    def slope_cosines(self, x: Tensor, directions: Tensor, step_seed: int | None = None, first: int = 0) -> Tensor:
        """Cosines between the logit's gradient in the embedding and given directions, differentiable in the parameters.

        The default differentiates `forward` twice; heads that know their gradient in closed form override it.

        Args:
            x: `(R, B, D)`.
            directions: `(R, P, D)`; each is that of the next (B - first) / P rows.
            step_seed: see `forward`.
            first: from this row on the gradient is taken.

        Returns:
            `(R, B - first)`.
        """
        rows = x[:, first:].detach().requires_grad_()
        (slopes,) = torch.autograd.grad(self(rows, step_seed).sum(), rows, create_graph=True)
        slopes = slopes.unflatten(1, (directions.shape[1], -1))
        return F.cosine_similarity(slopes, directions[:, :, None], dim=-1).flatten(1)

    def fit_input(self, embeddings: Tensor, indices: Sequence[Tensor]) -> None:
        """Set each head's input mean and scale from its own training rows.

        The scale is one number a head (root mean square of the centred coordinates): a scale a coordinate
        would be noise at 16 images.

        Args:
            embeddings: `(N, D)` float32.
            indices: R index tensors `(n_r,)` into `embeddings`.
        """
        for r, index in enumerate(indices):
            rows = embeddings[index]
            mean = rows.mean(0)
            self.input_mean[r] = mean
            self.input_scale[r] = (rows - mean).square().mean().sqrt().clamp_min(1e-6)

    def start(self, embeddings: Tensor, labels: Tensor, indices: Sequence[Tensor]) -> None:
        """Set what of each head's initial state its own training images decide; called after `reset` and `fit_input`.

        The default is nothing to set. Prototypes and caches of examples override it.

        Args:
            embeddings: `(N, D)` floating.
            labels: `(N,)` int, 1 is unsafe.
            indices: R index tensors `(n_r,)` into both.

        Raises:
            ConfigError: the head starts from text anchors and has none, or of another dimension.
        """

    @property
    def parameters_per_image(self) -> int:
        """Parameters a head gets with each training image (in `start`), for estimates of memory; 0 for most."""
        return 0

    def release(self) -> None:
        """Free the buffers that training keeps from step to step; called at its end."""

    def standardised_product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`((x - mean) / scale) @ weight + bias` without a centred copy of `x` for each head.

        Args:
            x: `(R, B, D)` or `(N, D)`.
            weight: `(R, D, H)`.
            bias: `(R, H)`.

        Returns:
            `(R, B, H)` or `(R, N, H)`.
        """
        scaled = weight / self.input_scale[:, None, None]
        shift = batched_affine(-self.input_mean[:, None, :], scaled, bias).squeeze(1)
        if x.ndim == 3:
            return batched_affine(x, scaled, shift)
        hidden = scaled.shape[-1]
        flat = x @ scaled.permute(1, 0, 2).reshape(self.dim, -1)  # (N, R*H): one product for all heads
        return flat.view(len(x), self.heads, hidden).transpose(0, 1) + shift[:, None, :]

    def head_state(self, r: int) -> dict[str, Tensor]:
        """Parameters and buffers of head `r` alone, keeping a leading dimension of 1: a bank of one loads it."""
        return {name: value[r : r + 1].detach().clone() for name, value in self.state_dict().items()}

    @torch.no_grad()
    def reset(self, seeds: Sequence[int]) -> None:
        """Draw every head's initial weights from its own seed, so that they do not depend on its neighbours."""
        for r, seed in enumerate(seeds):
            self.reset_head(r, torch.Generator().manual_seed(int(seed)))

    @abstractmethod
    def reset_head(self, r: int, generator: torch.Generator) -> None:
        """Initial weights of head `r`."""


def join_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The states of several banks of one definition as that of one bank, heads in order.

    Banks of examples may hold caches of different sizes: the smaller ones are padded with zeros to the largest, which
    such a bank takes for no example.

    Args:
        states: `state_dict()` of each bank, tensors `(R_i, ...)`.

    Returns:
        Tensors `(ΣR_i, ...)` by name.
    """
    joined = {}
    for name in states[0]:
        parts = [state[name] for state in states]
        shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        if all(list(part.shape[1:]) == shape for part in parts):
            joined[name] = torch.cat(parts)
            continue
        whole = parts[0].new_zeros(sum(map(len, parts)), *shape)
        first = 0
        for part in parts:
            whole[(slice(first, first + len(part)), *map(slice, part.shape[1:]))] = part
            first += len(part)
        joined[name] = whole
    return joined
