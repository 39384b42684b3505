"""How every figure of a curve looks: colours and marks of its lines, type, axes over budgets, legend columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.curves.statistics import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette without its yellow, which is too pale for a line on white. Black is real data alone.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "P", "h", "p")  # triangles are left to bounds
_DASHES: dict[str, Any] = {"none": "-", "paired": "-", "unpaired": (0, (4, 2)), "real": (0, (1, 1.5))}
_DASHES |= {"shuffled": (0, (6, 1.5, 1, 1.5)), "balanced": (0, (2, 1))}

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 8,
    "axes.titlesize": 7,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "guardtrain",  # the same results give the same bytes
    "pdf.fonttype": 42,  # TrueType, which publishers ask for; Type 3, the default, they refuse
    "ps.fonttype": 42,
}


@dataclass(frozen=True)
class HeadLine(Line):
    """Real data alone with one of several heads: heads are a figure's lines where they have nothing else.

    Args:
        head: its name, which is the label.
        place: among the figure's heads, from 0.
    """

    head: str
    place: int

    def label(self, both_arms: bool = False) -> str:
        """The head's name."""
        return self.head

    @property
    def order(self) -> tuple[int, ...]:
        """Sort key: the heads as the table has them."""
        return (self.place,)


def look(line: Line, lines: Sequence[Line]) -> dict[str, Any]:
    """Colour and marker by arm and ratio, dash by control; a control's markers are hollow. Heads have each their own.

    Args:
        line: the one to draw.
        lines: all lines of the figure, in reading order; a line looks the same in all of its panels.
    """
    if isinstance(line, HeadLine):
        cycle, index = divmod(line.place, len(_COLOURS))
        colour = _COLOURS[index]
        dash = ("-", *(_DASHES[name] for name in ("unpaired", "real")))[cycle % 3]
        face = "white" if cycle % 2 else colour
        return {"color": colour, "marker": _MARKERS[index], "linestyle": dash, "markerfacecolor": face}
    if line.control == "none":
        return {"color": "black", "marker": "x", "linestyle": _DASHES["none"]}
    families = list(dict.fromkeys((other.arm, other.ratio) for other in lines if other.control != "none"))
    index = families.index((line.arm, line.ratio))
    colour = _COLOURS[index % len(_COLOURS)]
    return {
        "color": colour,
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[line.control],
        "markerfacecolor": colour if line.control == "paired" else "white",
    }


def both_arms(lines: Sequence[Line]) -> bool:
    """Whether the labels of controls must say which arm they belong to."""
    return len({line.arm for line in lines if line.control != "none"}) > 1


def families_of(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines an arm and ratio at a time: pairs and their controls, which belong in one panel."""
    found: dict[object, list[Line]] = {}
    for line in lines:
        if line.control != "none":
            found.setdefault((line.arm, line.ratio), []).append(line)
    return list(found.values())


def family_name(family: Sequence[Line]) -> str:
    """Name a family of lines: "½ pair images (replace)", "pair images only"."""
    line = family[0]
    name = Line(line.arm, "paired", line.ratio).label()
    return name.replace("pairs only", "pair images only") if line.ratio == 1 else name.replace("pairs", "pair images")


def per_row(panels: int, width: float | None = None) -> int:
    """How many panels stand beside each other: 3 at most, each 2.2 inches wide at least."""
    most = panels if panels <= 3 else 2 if panels == 4 else 3
    return most if width is None else max(1, min(most, int(width / 2.2)))


def legend_grid(lines: Sequence[Line], width: float) -> tuple[list[Line | None], int]:
    """Legend entries in matplotlib's column-first order and the number of columns that fit into `width` inches.

    A line and its controls stand below each other; None is an empty place.
    """
    which = both_arms(lines)

    def inches(column: Sequence[Line | None]) -> float:  # of 7.5 point text, with its handle and the gap
        return 0.63 + 0.053 * max(len(line.label(which)) for line in column if line)

    if len(lines) <= 4 and sum(inches([line]) for line in lines) <= width:
        return list(lines), len(lines)
    if lines and isinstance(lines[0], HeadLine):
        for deep in range(1, len(lines) + 1):
            stacks = [lines[i : i + deep] for i in range(0, len(lines), deep)]
            if sum(map(inches, stacks)) <= width or deep == len(lines):
                return [*lines, *[None] * (len(stacks) * deep - len(lines))], len(stacks)
    families: dict[object, list[Line | None]] = {}
    for line in lines:
        families.setdefault("real only" if line.control == "none" else (line.arm, line.ratio), []).append(line)
    tall = max(map(len, families.values()))
    blocks = [family + [None] * (tall - len(family)) for family in families.values()]
    for columns in range(len(blocks), 0, -1):
        deep = -(-len(blocks) // columns)
        stacked = [[line for block in blocks[i : i + deep] for line in block] for i in range(0, len(blocks), deep)]
        if sum(map(inches, stacked)) <= width or columns == 1:
            break
    entries: list[Line | None] = [line for column in stacked for line in column]
    if len(stacked) == 1:
        return [line for line in entries if line], 1
    return entries + [None] * (len(stacked) * deep * tall - len(entries)), len(stacked)


def image_ticks(ax: Axes, ticks: Sequence[float], inches: float) -> None:
    """Ticks of an axis of images at `ticks`, as many of them labelled as fit a panel `inches` wide."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    labelled = _apart(_thinned(ticks, max(3, int((inches - 0.35) / 0.45))), ax.get_xlim(), inches - 0.6)
    ax.xaxis.set_major_locator(FixedLocator(labelled))
    ax.xaxis.set_minor_locator(FixedLocator([t for t in ticks if t not in labelled]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def powers_of_two(low: float, high: float) -> list[float]:
    """The powers of two from `low` to `high`."""
    return [2.0**k for k in range(int(np.ceil(np.log2(low))), int(np.floor(np.log2(high))) + 1)]


def _thinned(ticks: Sequence[float], most: int) -> list[float]:
    """At most about `most` of `ticks`, evenly from the last one down, and always the first."""
    step = -(-len(ticks) // most)
    kept = list(ticks[::-1][::step])[::-1]
    if kept and kept[0] == ticks[1 % len(ticks)]:
        del kept[0]  # the first stands in its place: next to each other their labels would run together
    return kept if kept and kept[0] == ticks[0] else [ticks[0], *kept]


def _apart(ticks: list[float], ends: tuple[float, float], inches: float) -> list[float]:
    """Return the `ticks` whose labels stay apart on a log axis of `inches`: the last and the first are kept.

    Budgets need not be evenly spread; 0, of an axis that is linear there, has its place.
    """
    positive = [tick for tick in ticks if tick > 0]
    if len(positive) < 2:
        return ticks
    low, high = ends if ends[0] > 0 else (positive[0], positive[-1])
    scale = inches / np.log2(high / low)

    def near(a: float, b: float) -> bool:
        return bool(scale * abs(np.log2(b / a)) < 0.06 * (len(f"{a:,.0f}") + len(f"{b:,.0f}")) / 2 + 0.08)

    kept = [positive[-1]]
    for tick in positive[-2:0:-1]:
        if not near(tick, kept[-1]) and not near(tick, positive[0]):
            kept.append(tick)
    return [tick for tick in ticks if tick <= 0] + [positive[0], *kept[::-1]]
