"""What the column `seed` of a results table counts, and so what intervals over it cover, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guardtrain.curves.statistics import seeds_text

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = "published:"  # what stands for the encoder of runs that were read, followed by their design and data
DESIGNS = ("folds", "seeds")
POOLED = "pooled"  # all folds of a point as one run


def published_encoder(design: str, name: str) -> str:
    """Return what the results table has in its column `encoder` for published runs of data `name`.

    Args:
        design: one of `DESIGNS`, or `POOLED`.
    """
    return f"{PUBLISHED}{design}:{name}"


@dataclass(frozen=True)
class Repeats:
    """The repetitions of a point: seeds on fixed test sets, or folds that each have test images of their own.

    Args:
        design: `seeds`, `folds`, or `pooled`: one run that holds all folds.
        published: whether the runs are others', read by `guardtrain ingest`; then what trains is called a method.
    """

    design: str
    published: bool

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Repeats:
        """Return the design of a results table; of a table that mixes designs, seeds."""
        encoders = set(frame["encoder"].astype(str))
        designs = {name.split(":")[1] for name in encoders if name.startswith(PUBLISHED)}
        published = bool(encoders) and all(name.startswith(PUBLISHED) for name in encoders)
        return cls(designs.pop() if published and len(designs) == 1 else "seeds", published)

    @property
    def folds(self) -> bool:
        """Whether each repetition has test images of its own."""
        return self.design == "folds"

    @property
    def over(self) -> str:
        """Return what intervals are over: "seeds", "folds"."""
        return "folds" if self.folds else "seeds"

    @property
    def method(self) -> str:
        """Return what a head is called: "head", or "method" where others trained it, perhaps more than a head."""
        return "method" if self.published else "head"

    @property
    def covers(self) -> str:
        """Say what varies from one to the next, for the caption of an interval."""
        if self.folds:
            return (
                "folds (each trained and tested on other images; somewhat too narrow, for folds share training images)"
            )
        return "seeds (draws of the training images; the test sets are fixed)"

    def count(self, counts: np.ndarray | Sequence[int]) -> str:
        """How many the points have: "5 seeds", "3–5 seeds", "10 folds"."""
        if self.design == POOLED:
            return "all folds at once"
        text = seeds_text(counts)
        return text.replace("seed", "fold") if self.folds else text

    def images(self, rows: pd.DataFrame) -> int:
        """Test images of one test set: of folds, those of all folds together.

        Args:
            rows: of slice `all` (or one other slice) on that test set.
        """
        if not self.folds:
            return int(rows["n_test"].iloc[0])
        return int(rows.drop_duplicates(["head", "budget", "seed"]).groupby(["head", "budget"])["n_test"].sum().max())


SEEDS = Repeats("seeds", published=False)  # runs of ours
