"""The bootstraps of one curve, each made once: figures, tables and answers take a second each to make alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates

REPLICATES = 1000  # for quantiles, such as those of multipliers
FOR_VARIANCES = 200


@dataclass
class Resampled:
    """The points of a curve, resampled over seeds and test groups.

    Args:
        frame: the curve's rows of a results table.
        scores: the scores folder beside it.
    """

    frame: pd.DataFrame
    scores: Path
    _made: dict[tuple[str, str, int], PointReplicates] = field(default_factory=dict, repr=False)

    @property
    def several_seeds(self) -> bool:
        """Whether there is a spread over seeds."""
        return len(set(self.frame["seed"])) > 1

    @cached_property
    def tests(self) -> list[str]:
        """The test sets that have the scores of every run."""
        from guardtrain.curves.scores import ScoresFolder
        from guardtrain.curves.statistics import whole_slices

        kept, whole = ScoresFolder(self.scores), whole_slices(self.frame)
        known, found = set(kept.tests()), []
        for test in (str(name) for name in dict.fromkeys(whole["test"])):
            if test in known and set(whole.loc[whole["test"] == test, "run"]) <= set(kept.read(test)[0].tolist()):
                found.append(test)
        return found

    def boot(self, test: str, metric: str, replicates: int = REPLICATES) -> PointReplicates:
        """Resample every point on one test set; see `guardtrain.curves.bootstrap.bootstrap_points`."""
        from guardtrain.curves.bootstrap import bootstrap_points

        asked = (test, metric, replicates)
        if asked not in self._made:
            self._made[asked] = bootstrap_points(self.frame, self.scores, *asked)
        return self._made[asked]

    def shown(self, panels: Sequence[tuple[str, str]]) -> dict[tuple[str, str], PointReplicates]:
        """Resample the panels that can be, often enough for variances: for intervals that cover test images, too.

        Args:
            panels: (test set, metric) pairs.
        """
        from guardtrain.curves.bootstrap import BOOTSTRAP_METRICS

        if not self.several_seeds:
            return {}
        can = [(test, metric) for test, metric in panels if metric in BOOTSTRAP_METRICS and test in self.tests]
        return {panel: self.boot(*panel, FOR_VARIANCES) for panel in can}
