"""The points of a curve with the intervals that a bootstrap found for them; light, for figures and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.curves.statistics import POINT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.bootstrap import PointReplicates


def with_test_images(points: pd.DataFrame, boot: PointReplicates | None) -> pd.DataFrame:
    """Return a `summarise` table whose intervals are over seeds *and* test groups.

    Args:
        points: of one metric on one test set.
        boot: the bootstrap of them; None leaves the intervals over seeds alone.
    """
    if boot is None:
        return points
    keys = [name for name in POINT_COLUMNS if name != "arm"]
    theirs = boot.points.assign(_arm=boot.points["arm"].where(boot.points["control"] != "none", ""))
    ours = points.assign(_arm=points["arm"].where(points["control"] != "none", ""))
    width = ours[[*keys, "_arm"]].merge(theirs[[*keys, "_arm", "half_width"]], how="left")["half_width"].to_numpy()
    return points.assign(low=points["mean"] - width, high=points["mean"] + width, half_width=width)
