"""Robust accuracy as one figure: a row an attack, a colour a guard, intervals; files and unrounded pixels."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.benchmarks.attacks.results import FILE, FLOAT, IMAGE
from guardtrain.benchmarks.attacks.settings import UNCHANGED
from guardtrain.curves.display_style import STYLE, HeadLine, look
from guardtrain.files import replace_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "attack"
_WIDTH, _DOTS = 7.0, 200
_METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


def draw(frame: pd.DataFrame, confidence: float) -> Figure:
    """A panel for each test set's images, and one for its pairs.

    Args:
        frame: see `guardtrain.benchmarks.attacks.results.robust_accuracy`.
        confidence: of the intervals, for the caption.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tests, units = list(dict.fromkeys(frame["test"])), dict.fromkeys(frame["unit"])
    panels = [(test, unit) for test in tests for unit in units if _part(frame, test, unit).shape[0]]
    guards = list(dict.fromkeys(frame["guard"]))
    rows = max(len(_titles(_part(frame, *panel))) for panel in panels)
    across = 1 if len(panels) == 1 else 2
    down = -(-len(panels) // across)
    each = rows * (0.13 + 0.09 * len(guards)) + 0.75
    with rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH if across > 1 else 4.8, down * each + 0.75), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (test, unit) in zip(grid.flat, panels, strict=False):
            _panel(axes, _part(frame, test, unit), guards)
            what = "images" if unit == IMAGE else "pairs, both sides right"
            axes.set_title(f"{test}: {what}")
            axes.set_xlabel(f"share still decided correctly ({100 * confidence:g} % intervals)")
        handles = [axes_line(grid[0, 0], f"{guard}, as files", guards, guard, hollow=False) for guard in guards] + [
            axes_line(grid[0, 0], "unrounded pixels", guards, guards[0], hollow=True)
        ] * bool((frame["pixels"] == FLOAT).any())
        figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), frameon=False)
    return figure


def write(figure: Figure, folder: Path) -> list[Path]:
    """`attack.png` and `attack.pdf` in `folder`."""
    from matplotlib import rc_context

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table of a PDF's fonts
    files = []
    for kind, metadata in _METADATA.items():
        file = folder / f"{FIGURE}.{kind}"
        save = partial(figure.savefig, format=kind, dpi=_DOTS, metadata=metadata)
        with rc_context(STYLE):
            replace_file(file, save)
        files.append(file)
    return files


def axes_line(axes: Axes, label: str, guards: list[str], guard: str, *, hollow: bool) -> Any:
    """An entry of the legend."""
    style = _style(guards, guard)
    colour = "0.4" if hollow else style["color"]
    (handle,) = axes.plot(
        [], [], linestyle="none", marker=style["marker"], color=colour, label=label,
        markerfacecolor="white" if hollow else colour,
    )  # fmt: skip
    return handle


def _panel(axes: Axes, rows: pd.DataFrame, guards: list[str]) -> None:
    titles = _titles(rows)
    height = 0.8 / max(1, len(guards))
    for g, guard in enumerate(guards):
        style = _style(guards, guard)
        for place, title in enumerate(titles):
            for pixels in (FLOAT, FILE):
                found = rows[(rows["guard"] == guard) & (rows["title"] == title) & (rows["pixels"] == pixels)]
                if found.empty:
                    continue
                row = found.iloc[0]
                y = place + (g - (len(guards) - 1) / 2) * height + (0.2 * height if pixels == FLOAT else 0)
                axes.errorbar(
                    row["value"], y,
                    xerr=np.array([[row["value"] - row["low"]], [row["high"] - row["value"]]]).clip(0),
                    color=style["color"], marker=style["marker"], linestyle="none", elinewidth=0.9,
                    markerfacecolor="white" if pixels == FLOAT else style["color"], zorder=3 if pixels == FILE else 2,
                )  # fmt: skip
    names = ["nothing changed" if title == UNCHANGED.label else title for title in titles]
    axes.set_yticks(range(len(titles)), names)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(visible=False, axis="y")
    for edge in range(1, len(titles)):
        axes.axhline(edge - 0.5, color="0.93", linewidth=0.6, zorder=0)


def _style(guards: list[str], guard: str) -> dict[str, Any]:
    lines = [HeadLine("replace", "none", 0.0, name, place) for place, name in enumerate(guards)]
    return look(lines[guards.index(guard)], lines)


def _part(frame: pd.DataFrame, test: str, unit: str) -> pd.DataFrame:
    return frame[(frame["test"] == test) & (frame["unit"] == unit)]


def _titles(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["title"]))
