"""Near duplicates between what is trained on and what is tested on, by cosine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardtrain.curves.audit.geometry import unit
from guardtrain.embeddings.rows import StoredRows

_BLOCK = 2048


@dataclass(frozen=True)
class NearDuplicates:
    """Couples of images of two parts whose cosine is above a threshold.

    Where not all images are compared, every figure is one of the sample: the whole has at least as many couples, at
    least as many images in them, and a highest cosine at least as high.

    Args:
        a, b: names of the parts.
        n_a, n_b: images compared, of `of_a` and `of_b` there are.
        n_couples: couples above the threshold, of those compared.
        n_of_b: images of `b` in such a couple.
        couples: (id in a, id in b, cosine), the nearest first, at most as many as are kept.
        nearest: the couple with the highest cosine, whether above the threshold or not.
    """

    a: str
    b: str
    n_a: int
    n_b: int
    of_a: int
    of_b: int
    n_couples: int
    n_of_b: int
    couples: tuple[tuple[str, str, float], ...]
    nearest: tuple[str, str, float]

    @property
    def sampled(self) -> bool:
        """Whether some images were not compared."""
        return self.n_a < self.of_a or self.n_b < self.of_b

    @property
    def expected_couples(self) -> float:
        """Couples of the whole, as the sample lets one expect: every couple is in it with the same probability."""
        share = (self.n_a * self.n_b) / (self.of_a * self.of_b) if self.of_a and self.of_b else 1.0
        return self.n_couples / share if share else 0.0


def near_duplicates(
    a: tuple[str, np.ndarray, np.ndarray | StoredRows],
    b: tuple[str, np.ndarray, np.ndarray | StoredRows],
    *,
    threshold: float = 0.999,
    most: int = 20_000,
    kept: int = 200,
    seed: int = 0,
) -> NearDuplicates:
    """Every couple of an image of `a` and one of `b` with a cosine above `threshold`.

    Args:
        a, b: name, ids (N,) and embeddings (N, D) of two parts.
        threshold: in (-1, 1).
        most: images compared of each part; more are drawn from.
        kept: couples listed.
        seed: of the draws.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> near_duplicates(("a", np.array(["p", "q"]), x), ("b", np.array(["r"]), x[:1])).couples
    (('p', 'r', 1.0),)
    """
    rng = np.random.default_rng(seed)
    parts = []
    for name, ids, matrix in (a, b):
        rows = np.arange(len(ids)) if len(ids) <= most else np.sort(rng.permutation(len(ids))[:most])
        parts.append((name, np.asarray(ids)[rows], unit(matrix[rows].astype(np.float32)), len(ids)))
    (name_a, ids_a, x, of_a), (name_b, ids_b, y, of_b) = parts
    listed: list[tuple[str, str, float]] = []
    count, seen = 0, np.zeros(len(y), dtype=bool)
    nearest = ("", "", -np.inf)
    for first in range(0, len(x), _BLOCK):
        cosine = np.minimum(x[first : first + _BLOCK] @ y.T, 1)
        i, j = np.unravel_index(int(np.argmax(cosine)), cosine.shape)
        if cosine[i, j] > nearest[2]:
            nearest = (str(ids_a[first + i]), str(ids_b[j]), float(cosine[i, j]))
        above = cosine > threshold
        if not above.any():
            continue
        rows, columns = np.nonzero(above)
        count += len(rows)
        seen[columns] = True
        found = zip(ids_a[first + rows], ids_b[columns], cosine[rows, columns], strict=True)
        listed += [(str(p), str(q), float(value)) for p, q, value in found]
        listed = sorted(listed, key=lambda couple: (-round(couple[2], 6), couple[:2]))[:kept]
    return NearDuplicates(name_a, name_b, len(x), len(y), of_a, of_b, count, int(seen.sum()), tuple(listed), nearest)
