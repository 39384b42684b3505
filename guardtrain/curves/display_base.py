"""What the figures of a curve have in common: panels on a page, a caption below, files in each format."""

from __future__ import annotations

import logging
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakSet

from guardtrain.curves.display_style import STYLE, both_arms, legend_grid, per_row
from guardtrain.curves.statistics import Line
from guardtrain.errors import ConfigError, DataError
from guardtrain.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

FIGURES = ("curve", "decomposition", "ratio_map", "multiplier", "categories", "reliability", "roc")
FORMATS = ("png", "svg", "pdf")

_WIDE, _SINGLE = 7.0, 4.4  # inches: a page of two columns; one panel alone
_DRAWN: WeakSet[Figure] = WeakSet()
_DOTS = 200  # an inch of a PNG
# no dates: the same results give the same bytes
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


@dataclass(kw_only=True)
class Display(ABC):
    """A figure of several panels, drawn by `plot` after `from_results` has made the statistics.

    Args:
        title: above the figure; None for none.
        notes: what was left out and why; they stand in the caption.
        width: in inches; None for 7, or 4.4 for one panel.

    Attributes:
        figure_: the figure, after `plot`.
        axes_: its axes, one a panel, after `plot`.
    """

    title: str | None = None
    notes: tuple[str, ...] = ()
    width: float | None = None
    figure_: Figure | None = field(default=None, init=False, repr=False)
    axes_: list[Axes] = field(default_factory=list, init=False, repr=False)

    _caption_text: Text | None = field(default=None, init=False, repr=False)  # the caption on the page

    name: ClassVar[str]  # of the files
    shared: ClassVar[bool] = False  # whether all panels have the same axes
    legend: ClassVar[bool] = True  # whether one legend below serves all panels
    panels: Any

    @abstractmethod
    def caption(self) -> str:
        """Say what lines, marks and bands are, over how many seeds, and what was left out."""

    @abstractmethod
    def alt(self) -> str:
        """The figure in words, for who cannot see it."""

    @abstractmethod
    def _lines(self) -> list[Line]:
        """The lines of all panels together, so that a line looks the same in each."""

    @abstractmethod
    def _draw(self, panel: Any, ax: Axes, lines: list[Line], inches: float) -> None:
        """Draw one panel into an axes about `inches` wide."""

    def _finish(self, panel: Any, ax: Axes) -> None:  # noqa: B027, most displays have nothing to do here
        """Do what can be done only when all panels are drawn."""

    def _room(self) -> float:
        """Return the inches above and below each square panel; 0 for panels of any shape."""
        return 0.0

    def _alone(self) -> tuple[float, float]:
        """Width of the figure and height of the panel, in inches, of one panel alone."""
        return _SINGLE, 2.9

    def _beside(self) -> int:
        """How many panels would stand beside each other if there were room for any number."""
        return per_row(len(self.panels))

    def plot(self, ax: Axes | Iterable[Axes] | None = None) -> Self:
        """Draw the panels.

        Args:
            ax: one a panel, to draw into a figure of yours, which then gets no caption of ours; None makes a figure of
                `width` inches, without touching pyplot's state.

        Returns:
            The display, with `figure_` and `axes_` set.

        Raises:
            DataError: another number of axes than of panels.
        """
        from matplotlib import rc_context

        lines = self._lines()
        with rc_context(STYLE):
            if ax is None:
                caption, entries, columns, inches = self._page(lines)
            else:
                self.axes_ = list(ax) if isinstance(ax, Iterable) else [ax]
                if len(self.axes_) != len(self.panels):
                    raise DataError(f"{len(self.panels)} panels need as many axes; {len(self.axes_)} were given.")
                self.figure_ = self.axes_[0].figure.canvas.figure  # the root, also of a subfigure's axes
                inches = self.axes_[0].get_position().width * self.figure_.get_figwidth() / 0.72
            for panel, axes in zip(self.panels, self.axes_, strict=True):
                self._draw(panel, axes, lines, inches)
            for panel, axes in zip(self.panels, self.axes_, strict=True):
                self._finish(panel, axes)
            if ax is None:
                self._frame(entries, columns, caption, both_arms(lines))
        return self

    def save(self, folder: str | Path, name: str | None = None, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
        """Write `<name>.<format>` into `folder`, the same bytes for the same results.

        Args:
            folder: made where it is not there.
            name: of the files; the kind of figure when None.
            formats: of `FORMATS`: png (200 dots an inch), svg (text as text), pdf (fonts embedded as TrueType).

        Returns:
            The paths.

        Raises:
            ConfigError: an unknown format.
        """
        from matplotlib import rc_context

        if unknown := [kind for kind in formats if kind not in FORMATS]:
            raise ConfigError(f"Unknown format '{unknown[0]}'; allowed: {', '.join(FORMATS)}.")
        if self.figure_ is None:
            self.plot()
        figure = self.figure_
        assert figure is not None
        logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # it tells which tables of a font it drops
        paths = [Path(folder) / f"{name or self.name}.{kind}" for kind in formats]
        for path, kind in zip(paths, formats, strict=True):

            def write(to: Path, kind: str = kind) -> None:
                figure.savefig(to, format=kind, dpi=_DOTS, metadata=_METADATA[kind])

            with rc_context(STYLE), _laid_out(figure):  # ticks are made while it is laid out, in that style
                replace_file(path, write)
        return paths

    def svg(self) -> str:
        """The figure as SVG without its caption, letters as outlines: the same wherever it is shown."""
        import io

        from matplotlib import rc_context

        if self.figure_ is None:
            self.plot()
        assert self.figure_ is not None
        buffer = io.StringIO()
        caption = "" if self._caption_text is None else self._caption_text.get_text()
        with rc_context({**STYLE, "svg.fonttype": "path"}), _laid_out(self.figure_):
            if self._caption_text is not None:
                self._caption_text.set_text("")
            self.figure_.savefig(buffer, format="svg", metadata=_METADATA["svg"], bbox_inches="tight", pad_inches=0.05)
            if self._caption_text is not None:
                self._caption_text.set_text(caption)
        return buffer.getvalue()

    def _page(self, lines: list[Line]) -> tuple[str, list[Line | None], int, float]:
        """A figure with axes for all panels; the caption wrapped, the legend's grid, the inches of a panel."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        beside = self._beside()
        width = self.width or (_WIDE if beside > 1 else self._alone()[0])
        beside = min(beside, per_row(3, width))
        rows = -(-len(self.panels) // beside)
        caption = textwrap.fill(self.caption(), int(18 * width))
        entries, columns = legend_grid(lines, width) if self.legend else ([], 1)
        below = 0.16 * (len(entries) // columns + caption.count("\n") + 1) + 0.15
        each = 2.4 if beside > 1 else min(self._alone()[1], 0.85 * width)
        if room := self._room():
            each = min(width / beside - 0.4, 2.5 if beside > 1 else 3.4) + room
        elif self.shared:
            each = min(each, 0.72 * width / beside + 0.25)
        below += 0.3 * bool(self._room())
        height = rows * each + below + 0.25 * bool(self.title)
        figure = Figure(figsize=(width, height), layout="constrained")
        if self._room():  # what stands above a square panel may be a hair taller than its layout finds
            figure.get_layout_engine().set(h_pad=0.08)  # type: ignore[union-attr,call-arg]
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, beside, squeeze=False, sharex=self.shared, sharey=self.shared)
        self.figure_, self.axes_ = figure, grid.ravel().tolist()[: len(self.panels)]
        for unused in grid.ravel().tolist()[len(self.panels) :]:
            unused.remove()
        if self.shared:
            for index, axes in enumerate(self.axes_):  # the lowest of each column has the numbers
                axes.tick_params(labelbottom=index + beside >= len(self.panels))
        return caption, entries, columns, width / beside

    def _frame(self, entries: Sequence[Line | None], columns: int, caption: str, which: bool) -> None:
        from matplotlib.lines import Line2D

        figure = self.figure_
        assert figure is not None
        if not self.legend:
            self._caption_text = figure.supxlabel(caption, fontsize=7, color="0.35")
        else:
            handles: dict[str, Any] = {"": Line2D([], [], linestyle="none")}
            for ax in self.axes_:
                for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                    handles.setdefault(label, handle)
            names = ["" if line is None else line.label(which) for line in entries]
            legend = figure.legend(
                [handles[n] for n in names],
                names,
                loc="outside lower center",
                ncols=columns,
                frameon=False,
                handlelength=3.2,
            )
            legend.set_title(caption)
            self._caption_text = legend.get_title()
            self._caption_text.set_color("0.35")
        if self.title:
            figure.suptitle(self.title, fontsize=10)

    def _lowest(self, ax: Axes) -> bool:
        """Whether no panel of ours stands below `ax`."""
        spec = ax.get_subplotspec()
        if spec is None or not self.shared:
            return True
        others = [other.get_subplotspec() for other in self.axes_]
        return not any(
            o is not None and o.colspan.start == spec.colspan.start and o.rowspan.start > spec.rowspan.start
            for o in others
        )

    def _leftmost(self, ax: Axes) -> bool:
        spec = ax.get_subplotspec()
        return spec is None or not self.shared or spec.is_first_col()


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Keep the layout of a figure that has been drawn: finding it takes as long as drawing.

    A figure of no layout engine at all is drawn once where it is saved, not twice as one whose engine is "none".
    """
    from matplotlib import rc_context

    engine = figure.get_layout_engine()
    if figure not in _DRAWN:
        figure.draw_without_rendering()
        _DRAWN.add(figure)
    with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
