"""The curve by category and by source as small multiples: one panel a slice of one test set, all on the same axes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from guardtrain.curves.display import CurveDisplay, CurvePanel, chosen_x, heads_as_lines, panel_heads
from guardtrain.curves.display_style import per_row
from guardtrain.curves.paid import CostSettings, with_paid
from guardtrain.curves.results import METRICS, SLICE_KINDS
from guardtrain.curves.statistics import one_baseline, summarise, whole_slices
from guardtrain.curves.summary import check_panels, in_table_order
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_PREFERRED = ("auroc", "accuracy", "pair_both_right")  # a slice of one class has no AUROC


@dataclass
class SliceChoice:
    """Whose slices are drawn.

    Args:
        test: name of the test set; null takes the first with pairs.
        metric: null takes AUROC, or accuracy where most slices hold one class.
    """

    test: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class SlicePanel(CurvePanel):
    """A panel of one slice: `slice_kind` is category or source, `slice` its name."""

    slice_kind: str
    slice: str


@dataclass
class CategoryDisplay(CurveDisplay):
    """Small multiples of a curve, one panel a category and one a source, drawn by `plot` after `from_results`.

    >>> # CategoryDisplay.from_results(table.read(), test="pairs").save("runs/scenes", formats=["pdf"])
    """

    name: ClassVar[str] = "categories"
    shared: ClassVar[bool] = True
    marks: ClassVar[Mapping[str, float]] = {"linewidth": 1.1, "markersize": 3}

    @classmethod
    def from_results(  # type: ignore[override]
        cls,
        frame: pd.DataFrame,
        test: str | None = None,
        metric: str | None = None,
        *,
        x: str = "auto",
        costs: CostSettings | None = None,
        title: str | None = None,
        width: float | None = None,
    ) -> CategoryDisplay:
        """Statistics of every slice of one test set, ready to plot; categories first, then sources.

        A kind with one slice only repeats the whole and is left out, as is (with a note) a slice where the metric is
        undefined, such as AUROC where there is one class.

        Args:
            frame: a results table with its slices.
            test: name of the test set; None takes the first with pairs and slices, else the first with slices.
            metric: one of `METRICS`; None takes AUROC, or accuracy where most slices hold one class.
            x, costs, title, width: see `CurveDisplay.from_results`.

        Raises:
            DataError: an unknown test set or metric, or one without two slices to compare.
            ConfigError: an unknown `x`.
        """
        whole = whole_slices(frame)
        sliced = one_baseline(frame[frame["slice_kind"] != "all"])
        kept = []
        for kind in SLICE_KINDS[1:]:
            of_kind = sliced[sliced["slice_kind"] == kind]
            counts = of_kind.groupby("test")["slice"].nunique()
            kept += [(str(name), kind) for name in counts.index[counts > 1]]
        paired = set(whole.loc[whole["n_pairs"] > 0, "test"])
        tests = [str(name) for name in dict.fromkeys(whole["test"]) if any(name == of for of, _ in kept)]
        if test is None and tests:
            test = next((name for name in tests if name in paired), tests[0])
        if test is not None:
            check_panels(whole, [(test, metric or "auroc")])
        if test is None or test not in tests:
            where = "No test set" if test is None else f"Test set '{test}'"
            raise DataError(
                f"{where} has two categories or two sources to compare: give the test records a 'category' or a "
                f"'source'. With slices: {', '.join(tests) or 'none'}."
            )
        rows = sliced[(sliced["test"] == test) & sliced["slice_kind"].isin([k for name, k in kept if name == test])]
        metric = metric or _telling(rows)
        as_lines = heads_as_lines(whole)
        made, notes = [], []
        for head, of_head in panel_heads(rows):
            for kind in SLICE_KINDS[1:]:
                of_kind = of_head[of_head["slice_kind"] == kind]
                for name in sorted(of_kind["slice"].unique()):
                    own = of_kind[of_kind["slice"] == name]
                    points = in_table_order(summarise(own, metric), own)
                    points = points[points["n_seeds"] > 0].reset_index(drop=True)
                    if points.empty:
                        notes.append(f"{METRICS[metric]} has no values in {kind} '{name}': left out.")
                        continue
                    points = with_paid(points, costs or CostSettings())
                    sizes = own[["n_test", "n_pairs"]].iloc[0].tolist()
                    about = (test, metric, *sizes, points, kind, str(name))
                    made.append(SlicePanel(head, *about, heads=as_lines))
        if not made:
            raise DataError(f"Nothing to draw. {' '.join(notes)}")
        return cls(made, chosen_x(whole, x), title=title, notes=tuple(notes), width=width)

    def caption(self) -> str:
        """Say what lines and bands are, and that slices are small and several."""
        kinds = {"category": "categories", "source": "sources"}
        what = " and ".join(dict.fromkeys(kinds[p.slice_kind] for p in self.panels if isinstance(p, SlicePanel)))
        return (
            f"The {what} of test set '{self.panels[0].test}', on the same axes. {super().caption()} "
            f"No interval is corrected for the {len(self.panels)} panels."
        )

    def _name(self, panel: CurvePanel) -> str:
        assert isinstance(panel, SlicePanel)
        return f"{METRICS[panel.metric]} in {panel.slice_kind} '{panel.slice}' of test set '{panel.test}'"

    def _measure(self, panel: CurvePanel) -> str:
        return METRICS[panel.metric]

    def _heading(self, panel: CurvePanel) -> str:
        assert isinstance(panel, SlicePanel)
        kinds = {p.slice_kind for p in self.panels if isinstance(p, SlicePanel)}
        name = f"{panel.slice_kind} {panel.slice}" if len(kinds) > 1 else panel.slice
        size = f"{panel.n_test:,} images" + (f", {panel.n_pairs:,} pairs" if panel.n_pairs else "")
        heads = len({p.head for p in self.panels})
        return f"{panel.head}\n" * (heads > 1) + f"{textwrap.shorten(name, 36, placeholder=' …')}\n{size}"

    def _alike(self, one: CurvePanel, other: CurvePanel) -> bool:
        return True  # the axes are shared

    def _beside(self) -> int:
        return per_row(len(self.panels) // len({panel.head for panel in self.panels}))


def _telling(rows: pd.DataFrame) -> str:
    """The first of the preferred metrics that is defined in half of the slices or more."""
    slices = rows.groupby(["slice_kind", "slice"])
    for metric in _PREFERRED:
        if slices[metric].count().gt(0).mean() >= 0.5:
            return metric
    return _PREFERRED[0]
