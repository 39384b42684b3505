"""Which images a guard was made of: a sketch of each, 32 bytes, by which they are known again in a benchmark of it.

Whoever has a picture can tell whether it is among them; no picture can be made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardtrain.embeddings.sketches import NUMBERS, nearest, sketched
from guardtrain.errors import GuardError

# The distance up to which two embeddings of unit norm are of one picture. bfloat16 is taken where it moves embeddings
# by .014 at most (a cosine of .9999). The halves of a pair of scenes, which a small thing tells apart, are .04 apart or
# more.
SAME = 0.02
TRAINED, FITTED = "trained_on", "fitted_on"  # columns of scores; absent where a guard does not know


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

    def made_of(self, embeddings: np.ndarray) -> dict[str, np.ndarray]:
        """Return `TRAINED` and `FITTED` to (N,) bool, which of the images (N, D) the guard was made of.

        What is not known is left out.
        """
        found = {TRAINED: self.trained_on(embeddings), FITTED: self.fitted_on(embeddings)}
        return {name: mask for name, mask in found.items() if mask is not None}

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
    return nearest(known, sketched([embeddings]), SAME) >= 0
