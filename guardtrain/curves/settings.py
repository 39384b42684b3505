"""The settings of what is drawn and written of a curve: figures, tables and report."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from guardtrain.curves.display import X_AXES
from guardtrain.curves.display_base import FIGURES, FORMATS
from guardtrain.curves.display_categories import SliceChoice
from guardtrain.curves.paid import CostSettings
from guardtrain.curves.point_scores import PointChoice
from guardtrain.curves.tables import TABLE_FORMATS
from guardtrain.errors import ConfigError


@dataclass
class PanelSettings:
    """One panel of the figure: a metric on a test set."""

    test: str = MISSING
    metric: str = MISSING


@dataclass
class PlotSettings:
    """Figures, summary, tables and report.

    Args:
        figures: of `curve`, `decomposition`, `ratio_map` (which share of pairs is best, of four ratios and more),
            `multiplier`, `categories`, `reliability` and `roc`; null draws all that the results allow.
        formats: of the figures' files: `png`, `svg`, `pdf`.
        panels: which metric on which test set; empty picks the telling ones.
        x: `auto`, `budget`, `n_pair_images`, or what was paid: `images`, `labels`, `contexts` (scenes) or `cost`. A
            pair is two images, one label, one context, one edit and one check.
        costs: what a label, an edit and a check cost, for `cost`.
        title: above the figures; null for none.
        width: of the figures in inches, such as 3.3 for a column; null for 7, or 4.4 where there is one panel.
        point: the points that `reliability` and `roc` show.
        categories: the test set and metric that `categories` shows.
        in_domain: the test set that shares the training images' contexts, for the shortcut check; null for the one
            called `in_domain`, else the only one without pairs; '' for no check.
        tables: summary and data efficiency as files: `md` (GitHub Markdown), `tex` (LaTeX, booktabs).
        report: write `report.html`: one page with all of it.
    """

    figures: list[str] | None = field(default_factory=lambda: ["curve"])
    formats: list[str] = field(default_factory=lambda: ["png", "svg"])
    panels: list[PanelSettings] = field(default_factory=list)
    x: str = "auto"
    costs: CostSettings = field(default_factory=CostSettings)
    title: str | None = None
    width: float | None = None
    point: PointChoice = field(default_factory=PointChoice)
    categories: SliceChoice = field(default_factory=SliceChoice)
    in_domain: str | None = None
    tables: list[str] = field(default_factory=list)
    report: bool = False

    def __post_init__(self) -> None:
        if self.x not in X_AXES:
            raise ConfigError(f"plot.x is '{self.x}'; allowed: {', '.join(X_AXES)}.")
        if self.width is not None and not 2 <= self.width <= 40:
            raise ConfigError(f"plot.width is {self.width:g} inches; allowed: 2 to 40, or null.")
        lists = (("figures", self.figures or [], FIGURES), ("formats", self.formats, FORMATS))
        for name, given, allowed in (*lists, ("tables", self.tables, TABLE_FORMATS)):
            if unknown := [item for item in given if item not in allowed]:
                raise ConfigError(f"plot.{name} has '{unknown[0]}'; allowed: {', '.join(allowed)}.")
