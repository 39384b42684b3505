"""The MLP head: ReLU layers on the embedding, as LAION's NSFW detector and MultiHeaded use."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from guardtrain.errors import ConfigError
from guardtrain.heads.bank import HeadBank, batched_affine
from guardtrain.heads.products import fast_float32_products, product_dtype


@dataclass
class MLPHead:
    """ReLU layers of the given widths, then one logit.

    Args:
        hidden: widths of the hidden layers.
        dropout: share of hidden units dropped in training, in [0, 1).

    >>> MLPHead(hidden=[4]).bank(heads=2, dim=8)(torch.zeros(5, 8)).shape
    torch.Size([2, 5])
    """

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [64])
    dropout: float = 0.0
    convex: ClassVar[bool] = False
    pair_gradient: ClassVar[float] = 1.0  # what loss.pairs.gradient is where it is left to the head

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"head.hidden lists the widths of one or more hidden layers, each >= 1; got {self.hidden}."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head.dropout is a share in [0, 1); got {self.dropout}.")

    def bank(self, heads: int, dim: int) -> MLPBank:
        """R untrained MLP heads on D-dimensional embeddings."""
        return MLPBank(heads, dim, self.hidden, self.dropout)


class MLPBank(HeadBank):
    """R MLP heads; weights start as torch's `Linear` does (uniform in ±1/√fan_in), each head from its own seed.

    Until `reset` is given the seeds, all heads are that of seed 0.

    Dropout is inverted (Srivastava et al., JMLR 2014). A head's mask is a function of its seed, the step and the layer
    alone: it is the same in any bank and after any resume, and heads of one seed share it.

    In training on rows `(R, B, D)` the whole network is one step of autograd, `_TrainingPass`: its buffers are kept
    from step to step, and the gradients of the parameters go straight into `.grad` (added to what is there).
    `torch.autograd.grad` with respect to the parameters is therefore for evaluation mode, and rows that require a
    gradient of their own take the layers one by one. The factors of its large products may be rounded to bfloat16
    (`product_dtype`; AUROC then agrees with float32's to 2e-4 or better); scores are always made in float32.

    Attributes:
        precision: of training's products: `auto`, `float32` or `bfloat16`.
    """

    def __init__(self, heads: int, dim: int, hidden: list[int], dropout: float) -> None:
        super().__init__(heads, dim)
        self.dropout, self.precision = dropout, "auto"
        widths = [dim, *hidden, 1]
        self.weights = nn.ParameterList(torch.empty(heads, i, o) for i, o in itertools.pairwise(widths))
        self.biases = nn.ParameterList(torch.empty(heads, o) for o in widths[1:])
        self.seeds: list[int] = []
        self.reset([0] * heads)
        self._gradients: dict[str, Tensor] = {}
        self._idle: list[_Workspace] = []  # buffers of finished training passes
        self._idle_cosines: list[_Workspace] = []  # and of finished `_SlopeCosines`

    def release(self) -> None:
        self._gradients.clear()
        self._idle.clear()
        self._idle_cosines.clear()

    @torch.no_grad()
    def reset(self, seeds: Sequence[int]) -> None:
        """See `HeadBank.reset`; heads of one seed start alike, so their weights are drawn once."""
        self.seeds = [int(seed) for seed in seeds]
        first: dict[int, int] = {}
        for r, seed in enumerate(self.seeds):
            if first.setdefault(seed, r) == r:
                self.reset_head(r, torch.Generator().manual_seed(seed))
                continue
            for parameter in self.parameters():
                parameter[r] = parameter[first[seed]]

    def forward(self, x: Tensor, step_seed: int | None = None) -> Tensor:
        """See `HeadBank.forward`; here `step_seed` is the training step, and the heads' own seeds do the rest."""
        masks = self._dropout_masks(step_seed, x)
        if self.training and x.ndim == 3 and torch.is_grad_enabled() and not x.requires_grad:
            logits: Tensor = _TrainingPass.apply(self, x, masks, None, *self.parameters())
            return logits
        return self._last_layer(self._hidden_layers(x, masks)[-1])

    def with_features(self, x: Tensor, step_seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """See `HeadBank.with_features`; the features are the last hidden layer, after ReLU and dropout."""
        masks = self._dropout_masks(step_seed, x)
        if self.training and torch.is_grad_enabled() and not x.requires_grad:
            both: tuple[Tensor, Tensor] = _TrainingPass.apply(self, x, masks, first, *self.parameters())
            return both
        hidden = self._hidden_layers(x, masks)[-1]
        return self._last_layer(hidden), hidden[:, first:]

    def slope_cosines(self, x: Tensor, directions: Tensor, step_seed: int | None = None, first: int = 0) -> Tensor:
        """See `HeadBank.slope_cosines`.

        In closed form: the gradient is the product of the weights, of those units alone that pass a slope on. Which
        these are does not change with the weights but at a jump, so it takes derivatives of the first order alone.
        """
        masks = [[(heads, mask[first:]) for heads, mask in layer] for layer in self._dropout_masks(step_seed, x)]
        with torch.no_grad(), fast_float32_products():
            rows = (x[:, first:] - self.input_mean[:, None, :]) / self.input_scale[:, None, None]
            passed = []  # (R, B, H) 0 or 1, for each hidden layer
            for layer, (weight, bias) in enumerate(zip(list(self.weights)[:-1], list(self.biases)[:-1], strict=True)):
                rows = self._after(torch.baddbmm(bias[:, None, :], rows, weight), masks, layer)
                passed.append(rows.sign())
        slopes = self.weights[-1].mT  # (R, 1, H)
        for weight, units in zip(reversed(list(self.weights)[1:-1]), reversed(passed[1:]), strict=True):
            slopes = (slopes * units) @ weight.mT
        cosines: Tensor = _SlopeCosines.apply(self, slopes * passed[0], self.weights[0], directions)
        return cosines

    def _hidden_layers(self, x: Tensor, masks: list[list[tuple[slice, Tensor]]]) -> list[Tensor]:
        """Every hidden layer `(R, B, H)` after ReLU and dropout, the layers one by one."""
        layers: list[Tensor] = []
        for layer, (weight, bias) in enumerate(zip(list(self.weights)[:-1], list(self.biases)[:-1], strict=True)):
            before = batched_affine(layers[-1], weight, bias) if layers else self.standardised_product(x, weight, bias)
            layers.append(self._after(before, masks, layer))
        return layers

    @staticmethod
    def _after(before: Tensor, masks: list[list[tuple[slice, Tensor]]], layer: int) -> Tensor:
        """ReLU and dropout."""
        hidden = before.relu()
        if not masks:
            return hidden
        return hidden * torch.cat([mask.expand(heads.stop - heads.start, -1, -1) for heads, mask in masks[layer]])

    def _last_layer(self, hidden: Tensor) -> Tensor:
        return batched_affine(hidden, self.weights[-1], self.biases[-1]).squeeze(-1)

    def reset_head(self, r: int, generator: torch.Generator) -> None:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[1])
            for parameter in (weight, bias):
                parameter[r] = torch.empty(parameter[r].shape).uniform_(-bound, bound, generator=generator)

    def _dropout_masks(self, step: int | None, x: Tensor) -> list[list[tuple[slice, Tensor]]]:
        """For each hidden layer: neighbouring heads of one seed and their mask `(B, H)`, 0 or 1 / (1 - dropout)."""
        if step is None or self.dropout == 0:
            return []
        return [
            dropout_masks(self.dropout, self.seeds, step, layer, (x.shape[-2], bias.shape[1]), x.device)
            for layer, bias in enumerate(self.biases[:-1])
        ]

    def _accumulate(self, name: str, parameter: Tensor, product: Any) -> None:
        """Let `product(out=...)` write a parameter's gradient, or add to the one that is there."""
        buffer = self._gradients.get(name)
        if buffer is None or buffer.shape != parameter.shape or buffer.device != parameter.device:
            buffer = self._gradients[name] = torch.empty_like(parameter)
        if parameter.grad is None:
            product(buffer)
            parameter.grad = buffer
        else:
            more = torch.empty_like(parameter)
            product(more)
            parameter.grad.add_(more)


class _TrainingPass(torch.autograd.Function):
    """Logits of an `MLPBank` on rows of each head's own, and the gradients of its parameters.

    Where a row is named, the last hidden layer of it and those after it is a second result.

    The same as autograd on the layers one by one, without what training does not need: no gradient of the rows, no mask
    beside the activations, no memory allocated anew (page faults would cost as much as the products).
    """

    @staticmethod
    def forward(
        ctx: Any, bank: MLPBank, x: Tensor, masks: list[list[tuple[slice, Tensor]]], first: int | None, *_: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        work = bank._idle.pop() if bank._idle else _Workspace()
        weights, biases = list(bank.weights), list(bank.biases)
        low = product_dtype(bank.precision, x.device, x.shape[1]) == torch.bfloat16
        dtype = torch.bfloat16 if low else weights[0].dtype
        hidden = work.standardised(x, bank.input_mean, bank.input_scale)
        for layer, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            after = work.buffer(f"hidden{layer}", (*x.shape[:2], weight.shape[2]), weight)
            rows = work.lowered(f"input{layer}", hidden, dtype) if layer else work.lowered_input(dtype)
            work.product(rows, work.lowered(f"weight{layer}", weight, dtype), after)
            after.add_(bias[:, None, :]).relu_()
            if masks:
                for heads, mask in masks[layer]:
                    after[heads].mul_(mask)
            hidden = after
        ctx.bank, ctx.work, ctx.weights, ctx.biases = bank, work, weights, biases
        ctx.kept, ctx.dtype, ctx.first = 1 - bank.dropout if masks else 1.0, dtype, first
        logits = batched_affine(hidden, weights[-1], biases[-1]).squeeze(-1)
        return logits if first is None else (logits, hidden[:, first:].clone())  # the buffer is used again

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope: Tensor, feature_slope: Tensor | None = None) -> Any:
        bank, work, weights, biases = ctx.bank, ctx.work, ctx.weights, ctx.biases
        if work is None:
            raise RuntimeError("a training pass of an MLP bank can be differentiated once; run the bank again.")
        ctx.work = None
        last = len(weights) - 1
        below = work[f"hidden{last - 1}"]
        above = slope.unsqueeze(
            1
        )  # (R, 1, B): this way round the products of the last layer, one column wide, are fast
        bank._accumulate(f"weight{last}", weights[last], lambda out: torch.bmm(above, below, out=out.mT))
        bank._accumulate(f"bias{last}", biases[last], lambda out: torch.sum(above, 2, out=out))
        above = slope.unsqueeze(-1)  # (R, B, 1), from here on the loss's slope in a layer's output
        for layer in reversed(range(last)):
            weight = work.get(f"weight{layer + 1}", weights[layer + 1])
            inner = work.buffer(f"slope{layer}", work[f"hidden{layer}"].shape, weights[0])
            if above.shape[-1] == 1:
                torch.mul(above, weight.mT, out=inner)
            else:
                work.product(above, weight.mT, inner)
            if feature_slope is not None and layer == last - 1:
                inner[:, ctx.first :].add_(feature_slope)
            if ctx.kept < 1:
                inner.mul_(1 / ctx.kept)
            # a unit passes the slope on where it is above zero: dropped ones are zero as well
            torch.ops.aten.threshold_backward(inner, work[f"hidden{layer}"], 0.0, grad_input=inner)
            above = work.lowered(f"lowslope{layer}", inner, ctx.dtype)
            rows = work.get(f"input{layer}", work["x"] if layer == 0 else work[f"hidden{layer - 1}"])
            bank._accumulate(
                f"weight{layer}", weights[layer], lambda out, rows=rows, above=above: work.product(rows.mT, above, out)
            )
            bank._accumulate(f"bias{layer}", biases[layer], lambda out, inner=inner: torch.sum(inner, 1, out=out))
        bank._idle.append(work)
        return (None,) * (4 + len(weights) + len(biases))


class _SlopeCosines(torch.autograd.Function):
    """Cosines of rows `above @ weightᵀ` with directions; these rows, as long as embeddings, have one kept buffer."""

    @staticmethod
    def forward(ctx: Any, bank: MLPBank, above: Tensor, weight: Tensor, directions: Tensor) -> Tensor:
        work = bank._idle_cosines.pop() if bank._idle_cosines else _Workspace()
        flat = work.buffer("slopes", (*above.shape[:2], weight.shape[1]), weight)
        work.product(above, weight.mT, flat)
        slopes = flat.unflatten(1, (directions.shape[1], -1))  # (R, P, k, D)
        # where no unit passes a slope on, neither does it pass on what is divided by nothing here
        lengths = torch.linalg.vector_norm(slopes, dim=-1).clamp_min(1e-12)
        whole = lengths * torch.linalg.vector_norm(directions, dim=-1, keepdim=True).clamp_min(1e-12)
        cosines = (slopes @ directions[..., None]).squeeze(-1) / whole
        ctx.bank, ctx.work, ctx.lengths, ctx.whole = bank, work, lengths, whole
        ctx.save_for_backward(above, weight, directions, cosines)
        return cosines.flatten(1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, outer: Tensor) -> Any:
        above, weight, directions, cosines = ctx.saved_tensors
        work, ctx.work = ctx.work, None
        if work is None:
            raise RuntimeError("cosines of an MLP bank's slopes can be differentiated once; run the bank again.")
        outer = outer.view_as(cosines)
        slopes = work["slopes"].unflatten(1, (directions.shape[1], -1))
        slopes.mul_((-outer * cosines / ctx.lengths.square())[..., None])
        slopes.addcmul_(directions[:, :, None], (outer / ctx.whole)[..., None])
        of_above, of_weight = torch.empty_like(above), torch.empty_like(weight)
        work.product(work["slopes"], weight, of_above)
        work.product(work["slopes"].mT, above, of_weight)
        ctx.bank._idle_cosines.append(work)
        return None, of_above, of_weight, None


class _Workspace(dict[str, Tensor]):
    """The buffers of a training pass, by name."""

    # The rows in the buffers "x" and "input0", held so that no other tensor can take their place, and their versions: a
    # run that sees all its images in every step standardises them once.
    _source: tuple[tuple[Tensor, ...], tuple[int, ...]] | None = None
    _lowered_source: tuple[tuple[Tensor, ...], tuple[int, ...]] | None = None

    def standardised(self, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """`(x - mean) / scale` for `x` `(R, B, D)`, in the buffer "x"."""
        tensors = (x, mean, scale)
        held = self._source
        if (
            held is None
            or any(a is not b for a, b in zip(held[0], tensors, strict=True))
            or held[1] != _versions(tensors)
        ):
            out = torch.sub(x, mean[:, None, :], out=self.buffer("x", x.shape, mean))
            out.mul_(scale.reciprocal()[:, None, None])
            self._source = tensors, _versions(tensors)
        return self["x"]

    def lowered_input(self, dtype: torch.dtype) -> Tensor:
        """Return what `standardised` gave, as the products take it."""
        if self["x"].dtype == dtype or "input0" not in self or self._lowered_source is not self._source:
            self._lowered_source = self._source
            return self.lowered("input0", self["x"], dtype)
        return self["input0"]

    def buffer(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The buffer `name`, made anew where its shape, device or type has changed."""
        dtype, held = dtype or like.dtype, self.get(name)
        if held is None or held.shape != torch.Size(shape) or held.device != like.device or held.dtype != dtype:
            held = self[name] = torch.empty(shape, device=like.device, dtype=dtype)
        return held

    def lowered(self, name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
        """`value` as the products take it: itself, or a copy of fewer bits that stays in the buffer `name`."""
        if value.dtype == dtype:
            self.pop(name, None)
            return value
        return self.buffer(name, value.shape, value, dtype).copy_(value)

    def product(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """`left @ right` into `out`, which may be of more bits than both."""
        if left.dtype == out.dtype:
            with fast_float32_products():
                torch.bmm(left, right, out=out)
        else:
            low = self.buffer(f"product{tuple(out.shape)}", out.shape, left)
            out.copy_(torch.bmm(left, right, out=low))


def _versions(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """How often each was written to."""
    return tuple(tensor._version for tensor in tensors)


def dropout_masks(
    dropout: float, seeds: Sequence[int], step: int, layer: int, shape: tuple[int, int], device: torch.device
) -> list[tuple[slice, Tensor]]:
    """Neighbouring heads of one seed, and the mask `(B, H)` of a layer in a step, see `_dropout_mask`."""
    drawn: dict[int, Tensor] = {}
    groups: list[tuple[slice, Tensor]] = []
    start = 0
    for seed, same in itertools.groupby(seeds):
        stop = start + len(list(same))
        if seed not in drawn:
            drawn[seed] = _dropout_mask(dropout, (seed, step, layer), shape).to(device)
        groups.append((slice(start, stop), drawn[seed]))
        start = stop
    return groups


def _dropout_mask(dropout: float, key: tuple[int, ...], shape: tuple[int, int]) -> Tensor:
    """A mask `(B, H)` drawn from `key`: 1 / (1 - dropout) with probability 1 - dropout (to 1/65536), else 0.

    Sixteen bits decide about a unit; a mask of fewer rows is the beginning of one of more.
    """
    units = shape[0] * shape[1]
    bits = np.random.SFC64(list(key)).random_raw(-(-units // 4)).view(np.int16)[:units].reshape(shape)
    kept = bits >= round(dropout * 2**16) - 2**15
    return torch.from_numpy(np.multiply(kept, np.float32(1 / (1 - dropout)), dtype=np.float32))
