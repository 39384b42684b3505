"""Embeddings to logits: what cannot be the encoder's is refused, the head is worked out once for many calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.embeddings.norms import wrong_rows
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import GuardError

if TYPE_CHECKING:
    from guardtrain.heads.bank import HeadBank

_ROWS = 4096  # embeddings a pass through the head


def head_function(bank: HeadBank) -> Callable[[np.ndarray], np.ndarray]:
    """A bank of one as a function: embeddings (N, D) to logits (N,) float64, a block of rows at a time.

    Beside an encoder of 3 ms a dozen calls into torch are 5 % for one image: a linear head is one product of numpy's.

    Args:
        bank: in eval mode; of a linear one the weights are read now.
    """
    import torch

    from guardtrain.heads.linear import LinearBank

    if type(bank) is LinearBank:
        with torch.inference_mode():
            folded, shift = bank.on_raw_input()
        weight, bias = folded[0].numpy().copy(), shift[0].item()

        def linear(rows: np.ndarray) -> np.ndarray:
            return (rows @ weight).astype(np.float64) + bias

        return _by_blocks(linear)

    def by_torch(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return bank(torch.from_numpy(rows))[0].double().numpy()

    return _by_blocks(by_torch)


def head_logits(bank: HeadBank, embeddings: np.ndarray) -> np.ndarray:
    """(N,) float64 logits of a bank of one on embeddings (N, D)."""
    return head_function(bank)(embeddings)


def checked_embeddings(embeddings: Any, spec: EncoderSpec, dim: int) -> np.ndarray:
    """(N, D) floating array.

    Raises:
        GuardError: what cannot be embeddings of this encoder: another shape or type, NaN, not of unit norm.
    """
    rows = embeddings
    if not isinstance(rows, np.ndarray):
        rows = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise GuardError(
            f"Embeddings must be (N, {dim}), the encoder {spec.label} of this guard; these have shape "
            f"{rows.shape}. A single embedding is embedding[None]."
        )
    if rows.dtype.kind != "f":
        raise GuardError(f"Embeddings must be floating numbers; these are {rows.dtype}.")
    if (wrong := wrong_rows(rows, spec)) is not None:
        raise GuardError(wrong)
    return rows


def _by_blocks(judge: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def function(embeddings: np.ndarray) -> np.ndarray:
        if 0 < len(embeddings) <= _ROWS:
            return judge(np.ascontiguousarray(embeddings, dtype=np.float32))
        starts = range(0, len(embeddings), _ROWS)
        blocks = (np.ascontiguousarray(embeddings[i : i + _ROWS], dtype=np.float32) for i in starts)
        return np.concatenate([np.zeros(0), *map(judge, blocks)])

    return function
