"""Which images a guard was made of: 32 bytes of each, by which they are known again in a benchmark of it.

What is kept is no digest of a file or of an embedding's bits. Files of one picture differ, pools may be embeddings
alone, and the same picture has slightly other embeddings on another processor or in bfloat16. It is the embedding's
products with 16 fixed directions of random signs: two embeddings at the distance d are d apart in these, too, give or
take a fifth (root mean square; Johnson and Lindenstrauss, 1984; with signs, Achlioptas, 2003). No picture can be made
of them; whoever has a picture can tell whether it is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.errors import GuardError

if TYPE_CHECKING:
    from guardtrain.embeddings.rows import StoredRows

NUMBERS = 16
# The distance up to which two embeddings of unit norm are of one picture. bfloat16 is taken where it moves embeddings
# by .014 at most (a cosine of .9999). The halves of a pair of scenes, which a small thing tells apart, are .04 apart or
# more.
SAME = 0.02
_SEED = 20_021_984  # of the directions, which must never change
_ROWS = 8192  # embeddings read at once


def sketched(parts: Sequence[np.ndarray | StoredRows]) -> np.ndarray:
    """(M, 16) float16: what is kept of embeddings, each part (M_i, D) of any length but zero."""
    found = [np.zeros((0, NUMBERS), dtype=np.float16)]
    for part in parts:
        for start in range(0, len(part), _ROWS):
            rows = np.asarray(part[start : start + _ROWS], dtype=np.float32)
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
            found.append((rows @ _directions(rows.shape[1])).astype(np.float16))
    return np.concatenate(found)


@lru_cache(maxsize=4)
def _directions(dim: int) -> np.ndarray:
    """(D, 16) float32 of 1 and -1; the raw bits of this generator are the same in every version of numpy."""
    words = np.random.PCG64(_SEED).random_raw(-(-dim * NUMBERS // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: dim * NUMBERS]
    return (2 * bits.astype(np.float32) - 1).reshape(dim, NUMBERS)


@dataclass(frozen=True, eq=False)
class KnownImages:
    """The images that a guard was made of.

    Args:
        trained: (M, 16) float16, those its head was trained on; None where that is not known.
        fitted: (V, 16) float16, those that its probabilities and thresholds were fitted on; None where not known.
    """

    trained: np.ndarray | None = None
    fitted: np.ndarray | None = None

    def trained_on(self, embeddings: np.ndarray) -> np.ndarray | None:
        """(N,) bool: which of the images (N, D) the head was trained on; None where that is not known."""
        return _among(self.trained, embeddings)

    def fitted_on(self, embeddings: np.ndarray) -> np.ndarray | None:
        """(N,) bool: which of them its probabilities and thresholds were fitted on; None where that is not known."""
        return _among(self.fitted, embeddings)

    def write(self, path: Path) -> None:
        """Write them as safetensors; nothing where nothing is known."""
        from safetensors.numpy import save_file

        parts = {"trained": self.trained, "fitted": self.fitted}
        known = {name: np.ascontiguousarray(part) for name, part in parts.items() if part is not None}
        if known:
            save_file(known, path)

    @classmethod
    def read(cls, path: Path) -> KnownImages:
        """Read what `write` wrote; raises GuardError for another content."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            found = load_file(path)
        except (SafetensorError, OSError) as error:
            raise GuardError(f"{path} cannot be read: {error}. Export the guard again.") from error
        for name, part in found.items():
            if name not in ("trained", "fitted") or part.ndim != 2 or part.shape[1] != NUMBERS:
                raise GuardError(f"{path} holds {name} of shape {part.shape}. Export the guard again.")
        return cls(found.get("trained"), found.get("fitted"))


def _among(known: np.ndarray | None, embeddings: np.ndarray) -> np.ndarray | None:
    if known is None:
        return None
    if not len(known) or not len(embeddings):
        return np.zeros(len(embeddings), dtype=bool)
    from scipy.spatial import KDTree

    tree = KDTree(np.unique(known, axis=0).astype(np.float64))
    asked = sketched([embeddings]).astype(np.float64)
    # a product with a direction of signs is as large, in the mean of squares, as the distance itself
    distances, _ = tree.query(asked, distance_upper_bound=SAME * NUMBERS**0.5)
    return np.isfinite(distances)
