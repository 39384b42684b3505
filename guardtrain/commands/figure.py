"""Draw a curve's figure and print its summary, as `curve` and `plot` both end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.config import PlotSettings

if TYPE_CHECKING:
    import pandas as pd


def draw(frame: pd.DataFrame, plot: PlotSettings, results: Path, folder: Path) -> list[Path]:
    """Print the summary of a curve and draw its figure.

    Args:
        frame: the curve's rows of the results table.
        plot: panels and title; without panels of the user's own the data efficiency is shown, too.
        results: the curve's folder, with its scores.
        folder: where `curve.png` and `curve.svg` are written.

    Returns:
        The two files.
    """
    from guardtrain.curves.display import CurveDisplay
    from guardtrain.curves.efficiency_summary import efficiency_text
    from guardtrain.curves.folder import SCORES_FOLDER
    from guardtrain.curves.summary import print_summary

    panels = [(panel.test, panel.metric) for panel in plot.panels] or None
    print_summary(frame, panels)
    if panels is None and (text := efficiency_text(frame, results / SCORES_FOLDER)):
        print(f"\n{text}")
    display = CurveDisplay.from_results(frame, panels, x=plot.x, title=plot.title)
    return display.save(folder)
