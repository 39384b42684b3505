"""A few heads of an MLP bank at a time, their gradient written out: what they need stays in the processor's cache."""

from __future__ import annotations

import torch
from torch import Tensor

from guardtrain.heads.mlp import MLPBank, dropout_masks
from guardtrain.heads.products import product_dtype


class Buffers:
    """Memory that is used again and again, by name; whoever takes it overwrites what was there."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A contiguous tensor of this shape: the beginning of what has the name, or new where that is too short."""
        numbers = torch.Size(shape).numel()
        flat = self._flat.get(name)
        if flat is None or len(flat) < numbers or flat.dtype != dtype:
            flat = self._flat[name] = torch.empty(numbers, dtype=dtype)
        return flat[:numbers].view(shape)


class MLPBlock:
    """Neighbouring heads of an `MLPBank` in training: k heads, each on rows of its own.

    A step is `rows` filled by the caller and `standardise`, where they are not those of the last step; then `forward`,
    `cosines` where the loss has them, and `backward`, which leaves the gradients in `gradients`. It is what autograd
    does with the bank, in half as many passes over memory and without what is allocated anew in each step. Steps are to
    be taken under `torch.no_grad`, on the CPU, by one thread.

    Args:
        bank: the bank; float32.
        heads: which of its heads.
        images: rows of each head in a step.
        halves: halves of pairs, which are rows beside them, each pair its unsafe half and then its safe one.
        buffers: of this thread.

    Attributes:
        parameters: the heads' weights and then biases, `(k, ...)` views into the bank's, in its order.
        gradients: of these.
        rows: `(k, images + halves, D)` the rows of a step.
        logits: `(k, images + halves)`, after `forward`.
        similar: `(k, halves)` what `cosines` gave.
    """

    def __init__(self, bank: MLPBank, heads: slice, images: int, halves: int, buffers: Buffers) -> None:
        self.bank, self.heads, self.images, self.halves, self.buffers = bank, heads, images, halves, buffers
        self.parameters = [parameter[heads] for parameter in (*bank.weights, *bank.biases)]
        self.gradients = [buffers.take(f"gradient{i}", *value.shape) for i, value in enumerate(self.parameters)]
        layers = len(bank.weights)
        self._weights, self._biases = self.parameters[:layers], self.parameters[layers:]
        self._of_weights, self._of_biases = self.gradients[:layers], self.gradients[layers:]
        k, rows = heads.stop - heads.start, images + halves
        self.rows = buffers.take("rows", k, rows, bank.dim)
        widths = [bias.shape[1] for bias in self._biases[:-1]]
        self._hidden = [buffers.take(f"hidden{i}", k, rows, width) for i, width in enumerate(widths)]
        self._inner = [buffers.take(f"inner{i}", k, rows, width) for i, width in enumerate(widths)]
        self._passed = [buffers.take(f"passed{i}", k, rows, width) for i, width in enumerate(widths)]
        self._above = [buffers.take(f"above{i}", k, halves, width) for i, width in enumerate(widths)]
        self._along = buffers.take("along", k, halves // 2, widths[0])
        self._slopes = buffers.take("slopes", k, halves, bank.dim)
        self._dtype = product_dtype(bank.precision, self.rows.device, rows)
        self._mean, self._scale = bank.input_mean[heads, None], 1 / bank.input_scale[heads, None, None]
        self._lowered: dict[str, Tensor] = {}
        self.logits = self.similar = torch.empty(0)

    def standardise(self) -> None:
        """Standardise `rows` in place, each head's by its own mean and scale."""
        self.rows.sub_(self._mean).mul_(self._scale)
        self._lower("rows", self.rows)

    def forward(self, step: int) -> Tensor:
        """`logits` of the rows in a training step, by which dropout is drawn."""
        below = self.rows
        for layer, (weight, bias) in enumerate(zip(self._weights[:-1], self._biases[:-1], strict=True)):
            after = self._hidden[layer]
            if self._dtype == torch.float32:
                torch.baddbmm(bias[:, None], below, weight, out=after)
            else:
                rows = self._lower(f"below{layer}", below) if layer else self._lowered["rows"]
                self._product(rows, self._lower(f"weight{layer}", weight), after)
                after.add_(bias[:, None])
            if layer == 0 and self.halves:
                torch.sub(after[:, self.images :: 2], after[:, self.images + 1 :: 2], out=self._along)
            after.relu_()
            if self.bank.dropout:
                seeds, shape = self.bank.seeds[self.heads], (after.shape[1], after.shape[2])
                for some, mask in dropout_masks(self.bank.dropout, seeds, step, layer, shape, after.device):
                    after[some].mul_(mask)
            torch.sign(after, out=self._passed[layer])  # 1 where a unit passes a slope on, 0 where not
            below = after
        # no product: for one head that would go to another routine than for several, which rounds otherwise
        terms = torch.mul(below, self._weights[-1].mT, out=self._inner[-1])
        self.logits = terms.sum(2).add_(self._biases[-1])
        return self.logits

    @property
    def features(self) -> Tensor:
        """`(k, halves, H)` the last hidden layer of the pairs' halves."""
        return self._hidden[-1][:, self.images :]

    def cosines(self, lengths: Tensor) -> Tensor:
        """`(k, halves)` cosines between the logit's gradient in a half's row and the difference of its pair.

        Args:
            lengths: `(k, halves)` norm of the difference of each half's pair, of standardised rows.
        """
        above = self._weights[-1].mT  # (k, 1, H)
        for layer in reversed(range(len(self._hidden))):
            torch.mul(above, self._passed[layer][:, self.images :], out=self._above[layer])
            if layer:
                above = self._above[layer] @ self._weights[layer].mT
        self._product(self._above[0], self._weight(0).mT, self._slopes)
        # where no unit passes a slope on, neither does it pass on what is divided by nothing here
        self._norms = torch.linalg.vector_norm(self._slopes, dim=2).clamp_min_(1e-12)
        self._whole = self._norms * lengths
        dots = self._pairwise(self._above[0]).mul(self._along[:, :, None]).sum(3).flatten(1)
        self.similar = dots.div_(self._whole)
        return self.similar

    def backward(self, slopes: Tensor, of_cosines: Tensor | None = None, of_features: Tensor | None = None) -> None:
        """Put the gradient of the loss into `gradients`.

        Args:
            slopes: `(k, images + halves)` derivatives of the loss in the logits.
            of_cosines: `(k, halves)`, those in the last `cosines`; None where the loss has none.
            of_features: `(k, halves, H)`, those in `features`.
        """
        last = len(self._hidden) - 1
        torch.sum(slopes, 1, keepdim=True, out=self._of_biases[-1])
        torch.bmm(slopes[:, None], self._hidden[-1], out=self._of_weights[-1].mT)
        for layer in reversed(range(last + 1)):
            inner = self._inner[layer]
            if layer == last:
                torch.mul(slopes[:, :, None], self._weights[-1].mT, out=inner)
                if of_features is not None:
                    inner[:, self.images :].add_(of_features)
            else:
                self._product(self._inner[layer + 1], self._weight(layer + 1).mT, inner)
            if self.bank.dropout:
                inner.mul_(1 / (1 - self.bank.dropout))
            inner.mul_(self._passed[layer])
            torch.sum(inner, 1, out=self._of_biases[layer])
            if layer:
                below = self._lowered.get(f"below{layer}", self._hidden[layer - 1])
                self._product(below.mT, inner, self._of_weights[layer])
        by_norm = None if of_cosines is None else self._backward_of_cosines(of_cosines)
        self._product(self._lowered.get("rows", self.rows).mT, self._inner[0], self._of_weights[0])
        if by_norm is not None:
            self._product(self._slopes.mT, self._above[0].mul_(by_norm), self._of_weights[0], add=True)

    def _backward_of_cosines(self, outer: Tensor) -> Tensor:
        """Add the cosines' part to `inner` of the first layer, and to the gradients of the layers above it.

        The cosine of a slope s = W a with a difference d is s·d / (|s| |d|), where W d is what the first layer makes of
        the one half less what it makes of the other: the derivatives in it are derivatives in the halves' rows.

        Returns:
            `(k, halves, 1)` what s is multiplied by in the derivatives in s for the sake of |s|.
        """
        by_norm = (outer * self.similar).div_(self._norms).div_(self._norms).neg_()[:, :, None]
        by_dot = (outer / self._whole)[:, :, None]
        of_along = self._pairwise(self._above[0] * by_dot).sum(2)
        self._inner[0][:, self.images :: 2].add_(of_along)
        self._inner[0][:, self.images + 1 :: 2].sub_(of_along)
        inner = self.buffers.take("of above", *self._above[0].shape)
        self._product(self._slopes, self._weight(0), inner)
        inner.mul_(by_norm)
        self._pairwise(inner).addcmul_(self._pairwise(by_dot), self._along[:, :, None])
        for layer, passed in enumerate(self._passed):
            inner.mul_(passed[:, self.images :])
            if layer == len(self._passed) - 1:
                self._of_weights[-1][:, :, 0].add_(inner.sum(1))
            else:
                self._of_weights[layer + 1].baddbmm_(inner.mT, self._above[layer + 1])
                inner = inner @ self._weights[layer + 1]
        return by_norm

    @staticmethod
    def _pairwise(rows: Tensor) -> Tensor:
        """`(k, halves, H)` as `(k, halves / 2, 2, H)`."""
        return rows.view(len(rows), -1, 2, rows.shape[2])

    def _weight(self, layer: int) -> Tensor:
        """The weights of a layer, as products take them."""
        return self._lowered.get(f"weight{layer}", self._weights[layer])

    def _lower(self, name: str, value: Tensor) -> Tensor:
        """`value` as products take it: as it is, or rounded; that is kept."""
        if value.dtype == self._dtype:
            return value
        self._lowered[name] = self.buffers.take(f"low {name}", *value.shape, dtype=self._dtype).copy_(value)
        return self._lowered[name]

    def _product(self, left: Tensor, right: Tensor, out: Tensor, *, add: bool = False) -> None:
        """`left @ right` into `out`, or added to it, in the precision of training's products."""
        if self._dtype == torch.float32:
            torch.baddbmm(out, left, right, out=out) if add else torch.bmm(left, right, out=out)
            return
        low = self.buffers.take("low product", *out.shape, dtype=self._dtype)
        torch.bmm(left.to(self._dtype), right.to(self._dtype), out=low)
        out.add_(low) if add else out.copy_(low)
