"""Draw a curve's figure and print its summary, as `curve` and `plot` both end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.config import PlotSettings

if TYPE_CHECKING:
    import pandas as pd


def draw(frame: pd.DataFrame, plot: PlotSettings, folder: Path) -> list[Path]:
    """Print the summary of `frame` and write `curve.png` and `curve.svg` into `folder`; returns the files."""
    from guardtrain.curves.display import CurveDisplay
    from guardtrain.curves.summary import print_summary

    panels = [(panel.test, panel.metric) for panel in plot.panels] or None
    print_summary(frame, panels)
    display = CurveDisplay.from_results(frame, panels, x=plot.x, title=plot.title)
    return display.save(folder)
