"""The training images nearest to an image: what a guard shows as an explanation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardtrain.errors import GuardError
from guardtrain.guards.predictions import Neighbour

_ROWS = 1024  # inputs compared at once


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images as a guard keeps them.

    Args:
        embeddings: (M, D) float32 of unit norm.
        labels: (M,) 0 safe, 1 unsafe.
        ids: (M,) of the records.
        pair_ids: (M,) of their pairs, or None.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    ids: Sequence[str]
    pair_ids: Sequence[str | None]

    @classmethod
    def of(cls, embeddings: np.ndarray, labels: Any, ids: Sequence[Any], pair_ids: Sequence[Any]) -> Neighbours:
        """Keep embeddings (M, D) of any length, not zero."""
        rows = _unit(np.asarray(embeddings, dtype=np.float32))
        pairs = [None if pair is None else str(pair) for pair in pair_ids]
        return cls(rows, np.asarray(labels, dtype=np.int8), [str(i) for i in ids], pairs)

    def nearest(self, embeddings: np.ndarray, count: int) -> list[tuple[Neighbour, ...]]:
        """For each row (N, D) the `count` training images of the highest cosine, the nearest first; ties by place."""
        k = min(count, len(self.ids))
        out: list[tuple[Neighbour, ...]] = []
        for start in range(0, len(embeddings), _ROWS):
            cosines = _unit(np.asarray(embeddings[start : start + _ROWS], dtype=np.float32)) @ self.embeddings.T
            for row in cosines:
                order = np.argsort(-row, kind="stable")[:k]
                out.append(tuple(self._neighbour(int(i), float(row[i])) for i in order))
        return out

    def _neighbour(self, i: int, similarity: float) -> Neighbour:
        return Neighbour(self.ids[i], int(self.labels[i]), max(-1.0, min(1.0, similarity)), self.pair_ids[i])

    def write(self, path: Path) -> None:
        """Write it as safetensors, with ids as JSON in its header."""
        from safetensors.numpy import save_file

        said = {"ids": json.dumps(list(self.ids)), "pair_ids": json.dumps(list(self.pair_ids))}
        save_file({"embeddings": np.ascontiguousarray(self.embeddings), "labels": self.labels}, path, metadata=said)

    @classmethod
    def read(cls, path: Path) -> Neighbours:
        """Read what `write` wrote; raises GuardError for another content."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                said = file.metadata() or {}
                rows, labels = file.get_tensor("embeddings"), file.get_tensor("labels")
            ids, pairs = json.loads(said["ids"]), json.loads(said["pair_ids"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise GuardError(f"{path} holds no training images: {error}. Export the guard again.") from error
        if not len(rows) == len(labels) == len(ids) == len(pairs):
            raise GuardError(f"{path} holds {len(rows)} embeddings and {len(ids)} ids. Export the guard again.")
        return cls(rows, labels, ids, pairs)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
