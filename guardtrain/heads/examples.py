"""Banks that keep examples: labelled embeddings that are part of the head, as many as its run had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guardtrain.heads.unit_norm import UnitNormBank, unit_rows


class ExampleBank(UnitNormBank):
    """R heads with a cache of examples each, by class.

    Caches of different sizes stand side by side, padded with examples of mass 0 to the largest M. A state with another
    M than the bank's is loaded all the same: the bank takes its size.

    Args:
        heads: R.
        dim: D.
        trainable: whether the keys are parameters; else they are buffers.
    """

    keys: Tensor  # (R, 2, M, D): [:, 0] safe examples, [:, 1] unsafe ones
    mass: Tensor  # (R, 2, M): what each example counts, 0 for padding

    def __init__(self, heads: int, dim: int, trainable: bool = False) -> None:
        super().__init__(heads, dim)
        keys = torch.zeros(heads, 2, 0, dim)
        if trainable:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("mass", torch.zeros(heads, 2, 0))

    def similarities(self, x: Tensor, r: int) -> Tensor:
        """Products `(B, 2, M)` of rows `x` `(B, D)` of unit norm with the keys of head `r`."""
        return (x @ self.keys[r].reshape(-1, self.dim).T).view(len(x), 2, -1)

    def keep(self, examples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Fill the caches: embeddings `(n, D)`, labels `(n,)` and masses `(n,)` of each head; keys are normalised."""
        largest = max(int(np.bincount(labels, minlength=2).max()) for _, labels, _ in examples)
        self._resize(largest)
        with torch.no_grad():
            self.keys.zero_()
            self.mass.zero_()
            for r, (x, labels, masses) in enumerate(examples):
                rows = unit_rows(x)
                for c in (0, 1):
                    own = labels == c
                    count = int(own.sum())
                    self.keys[r, c, :count] = torch.from_numpy(rows[own]).to(self.keys)
                    self.mass[r, c, :count] = torch.from_numpy(masses[own]).to(self.mass)

    def head_state(self, r: int) -> dict[str, Tensor]:
        """The state of head `r` alone, without its padding."""
        state = super().head_state(r)
        filled = (state["mass"][0] != 0).any(0).nonzero()
        size = 0 if not len(filled) else int(filled.max()) + 1
        state["keys"], state["mass"] = state["keys"][:, :, :size].clone(), state["mass"][:, :, :size].clone()
        return state

    def _resize(self, size: int) -> None:
        if self.keys.shape[2] == size:
            return
        keys = self.keys.new_zeros(self.heads, 2, size, self.dim)
        if isinstance(self.keys, nn.Parameter):
            self.keys = nn.Parameter(keys)
        else:
            self.keys = keys
        self.mass = self.mass.new_zeros(self.heads, 2, size)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        keys = state_dict.get(f"{prefix}keys")
        if keys is not None and keys.ndim == 4:
            self._resize(keys.shape[2])
        super()._load_from_state_dict(state_dict, prefix, *rest)
