"""What a run's training images were paid for with: labels, scenes, edits and checks; light, for the config schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardtrain.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

PAID = ("images", "labels", "contexts", "cost")
_OF_WHOLE_PAIRS = ("paired", "shuffled")  # whose pair images are both halves of half as many scenes


@dataclass
class CostSettings:
    """Prices of one of each, in any unit.

    Args:
        label: a person says of an image whether it is safe.
        edit: an image is edited so that its label flips.
        check: somebody looks whether the edit did that.
    """

    label: float = 1.0
    edit: float = 1.0
    check: float = 1.0

    def __post_init__(self) -> None:
        for name in ("label", "edit", "check"):
            if getattr(self, name) < 0:
                raise ConfigError(f"plot.costs.{name} is {getattr(self, name):g}; it must be 0 or more.")
        if self.label == self.edit == self.check == 0:
            raise ConfigError("plot.costs are all 0; give what a label, an edit or a check costs.")


def with_paid(points: pd.DataFrame, costs: CostSettings) -> pd.DataFrame:
    """Points with columns for what they were paid for with: `images`, `labels`, `contexts` (scenes) and `cost`.

    A real image is one label. A pair is two images of one context: the original, which was labelled, and its edit,
    whose label comes of the edit and its check. Of the unpaired control each image is of a context of its own, and half
    of them are edits.

    Args:
        points: with `control`, `n_images` and `n_pair_images`.
    """
    real, of_pairs = points["n_images"] - points["n_pair_images"], points["n_pair_images"]
    edits = of_pairs / 2
    labels = real + edits
    contexts = real + of_pairs.where(~points["control"].isin(_OF_WHOLE_PAIRS), edits)
    cost = costs.label * labels + (costs.edit + costs.check) * edits
    return points.assign(images=points["n_images"], labels=labels, contexts=contexts, cost=cost)
