"""Print a curve's summary and write its figures, tables and report, as `curve` and `plot` both end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from guardtrain.curves.display_base import FIGURES
from guardtrain.curves.settings import PlotSettings
from guardtrain.errors import DataError
from guardtrain.files import note_drawn, replace_file

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.curves.best_ratios import RatioMap
    from guardtrain.curves.bootstrap import PointReplicates
    from guardtrain.curves.decomposition import Decomposition
    from guardtrain.curves.display_base import Display
    from guardtrain.curves.report import KeptConfig
    from guardtrain.curves.resampled import Resampled
    from guardtrain.curves.tables import Table

log = logging.getLogger(__name__)

NEED_SCORES = ("multiplier", "reliability", "roc")
_KINDS = {".md": "tables", ".tex": "tables", ".html": "report"}


def draw(
    frame: pd.DataFrame,
    plot: PlotSettings,
    results: Path,
    folder: Path,
    *,
    outlook: bool = False,
) -> list[Path]:
    """Print the summary of a curve, and write its figures, tables and report.

    Args:
        frame: the curve's rows of the results table.
        plot: what is wanted; without panels of the user's own the data efficiency is printed, too.
        results: the curve's folder, with its scores.
        folder: where the files are written.
        outlook: whether to print, too, what real data alone would need where pairs go beyond it: extrapolated.

    Returns:
        The files: figures, then tables, then the report.

    Raises:
        DataError: a test set, metric or point that the results do not have, or a figure named in `plot.figures` that
            they do not allow. With `plot.figures` null such a figure is left out, and the log says why.
    """
    from guardtrain.curves.efficiency_summary import efficiency_test, efficiency_text
    from guardtrain.curves.summary import print_summary
    from guardtrain.curves.tables import write_tables

    panels = _panels(plot)
    output = _Output(frame, plot, results)
    output.check()
    test = efficiency_test(frame, output.scores) if panels is None else None
    told = test in output.resampled.tests
    text = efficiency_text(frame, output.scores, boots=partial(output.boot, str(test)), outlook=outlook) if told else ""
    if text and (first := output.headline()):
        print(f"{first}\n")
    print_summary(frame, panels, boots=output.shown_boots(), in_domain=plot.in_domain)
    if text:
        print(f"\n{text}")
    if apart := output.decomposition_text():
        print(apart if text else f"\n{apart}")
    if best := output.ratio_text():
        print(best if text and not apart else f"\n{best}")
    displays = output.displays()
    files = [file for display in displays for file in display.save(folder, formats=plot.formats)]
    note_drawn(files)
    tables = output.tables() if plot.tables or plot.report else {}
    files += write_tables(tables, plot.tables, folder)
    if plot.report:
        from guardtrain.curves.report import REPORT_FILE

        output.tell_left_out()
        text = output.report(displays, [table for group in tables.values() for table in group])
        replace_file(folder / REPORT_FILE, partial(Path.write_text, data=text, encoding="utf-8"))
        files.append(folder / REPORT_FILE)
    else:
        output.tell_left_out()
    return files


def written(files: list[Path]) -> list[str]:
    """List what was written, a line a kind: "figure    a.png b.svg"."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        kinds.setdefault(_KINDS.get(file.suffix, "figure"), []).append(str(file))
    return [f"{kind:<10}{' '.join(names)}" for kind, names in kinds.items()]


@dataclass
class _Output:
    """The figures, tables and report of one curve; bootstraps, which take a second each, are made once."""

    frame: pd.DataFrame
    plot: PlotSettings
    results: Path
    notes: list[str] = field(default_factory=list)
    _left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> what
    _full: dict[tuple[str, str], PointReplicates] = field(default_factory=dict)

    @property
    def scores(self) -> Path:
        from guardtrain.curves.folder import SCORES_FOLDER

        return self.results / SCORES_FOLDER

    @cached_property
    def resampled(self) -> Resampled:
        """The curve's bootstraps."""
        from guardtrain.curves.resampled import Resampled

        return Resampled(self.frame, self.scores)

    def boot(self, test: str, metric: str) -> PointReplicates:
        """Return the bootstrap for quantiles; `headline` is of the last that was asked for first."""
        return self._full.setdefault((test, metric), self.resampled.boot(test, metric))

    def shown_boots(self) -> dict[tuple[str, str], PointReplicates]:
        """Return bootstraps of the panels shown, of those that have scores: for intervals that cover test images, too.

        Where there are those with more replicates, they serve.
        """
        from guardtrain.curves.statistics import default_panels, whole_slices

        if not self.resampled.several_seeds:
            return {}
        panels = _panels(self.plot) or default_panels(whole_slices(self.frame))
        return self.resampled.shown([panel for panel in panels if panel not in self._full]) | self._full

    def check(self) -> None:
        """Refuse what the results cannot have, before anything is printed or written."""
        from guardtrain.curves.best_ratios import check_ratios
        from guardtrain.curves.point_scores import chosen_points
        from guardtrain.curves.statistics import whole_slices
        from guardtrain.curves.summary import check_panels

        plot, asked = self.plot, self.plot.figures
        whole = whole_slices(self.frame)
        if whole["encoder"].astype(str).str.startswith("published:").any():
            raise DataError(
                f"The results in {self.results} are of scores that others published, by `guardtrain ingest`, which "
                "left: their folds are no seeds. Such scores take part in `guardtrain benchmark "
                "'guards=[GUARD,{scores: FILE}]'`."
            )
        known = str(whole["test"].iloc[0])
        check_panels(whole, [(plot.categories.test or known, plot.categories.metric or "auroc")])
        check_panels(whole, [(plot.in_domain or known, "auroc")])
        if asked is None or {"reliability", "roc"} & set(asked):
            chosen_points(self.frame, plot.point)
        if "ratio_map" in (asked or ()):
            check_ratios(whole)
        if needy := [name for name in asked or [] if name in NEED_SCORES]:
            self._check_scores(", ".join(needy))

    def displays(self) -> list[Display]:
        """The figures asked for; with none named, those that can be drawn."""
        asked = self.plot.figures
        makers: dict[str, Callable[[], Display]] = {
            "curve": self._curve,
            "decomposition": self._decomposition,
            "ratio_map": self._ratio_map,
            "multiplier": self._multiplier,
            "categories": self._categories,
            "reliability": lambda: self._points("reliability"),
            "roc": lambda: self._points("roc"),
        }
        if asked is not None:
            return [makers[name]() for name in dict.fromkeys(asked)]
        made = []
        for name in FIGURES:
            try:
                if name in NEED_SCORES:
                    self._check_scores("that")
                made.append(makers[name]())
            except DataError as error:
                if name == "curve":
                    raise
                self._leave_out(name, str(error))
        return made

    def tables(self) -> dict[str, list[Table]]:
        """The tables by file name."""
        from guardtrain.curves.efficiency_summary import measure_efficiency
        from guardtrain.curves.tables import efficiency_tables, summary_tables

        out = {"summary": summary_tables(self.frame, _panels(self.plot), self.shown_boots())}
        try:
            measured = [head for boot in self._multiplier_boots() for head in measure_efficiency(self.frame, boot)]
        except DataError as error:
            self._leave_out("efficiency table", str(error))
        else:
            out["efficiency"] = efficiency_tables(measured)
        return out

    def report(self, displays: list[Display], tables: list[Table]) -> str:
        from guardtrain.curves.bootstrap import BOOTSTRAP_METRICS
        from guardtrain.curves.comparisons import comparisons
        from guardtrain.curves.findings import findings
        from guardtrain.curves.report import report_html
        from guardtrain.curves.statistics import default_panels, whole_slices

        panels = _panels(self.plot)
        chosen = panels if panels is not None else default_panels(whole_slices(self.frame))
        boots = self.shown_boots() if all(metric in BOOTSTRAP_METRICS for _, metric in chosen) else {}
        compared = comparisons(self.frame, chosen, boots)
        return report_html(
            self.frame,
            displays,
            tables,
            findings(self.frame, panels, boots, self.plot.in_domain, self._told_multipliers(), compared),
            compared,
            resampled=bool(boots),
            seeds_alone=[
                f"'{test}'" for test in dict.fromkeys(test for test, _ in chosen) if test not in self.resampled.tests
            ],
            config=self.kept,
            title=self.plot.title,
            notes=self.notes,
        )

    def _told_multipliers(self) -> list[PointReplicates]:
        """The first bootstrap with a multiplier: the report's findings are to be short."""
        try:
            return self._multiplier_boots()[:1]
        except DataError:
            return []

    def _curve(self) -> Display:
        from guardtrain.curves.display import CurveDisplay

        plot = self.plot
        return CurveDisplay.from_results(
            self.frame,
            _panels(plot),
            x=plot.x,
            costs=plot.costs,
            boots=self.shown_boots(),
            title=plot.title,
            width=plot.width,
        )

    def headline(self) -> str:
        """The first lines: images that a target takes, and what a pair is worth, by the metric the multiplier has."""
        from guardtrain.curves.headline import headline

        made = [headline(boot) for boot in list(self._full.values())[-1:]]
        return "\n".join(one.text() for one in made if one is not None)

    @cached_property
    def kept(self) -> KeptConfig | None:
        """The config of the command that made the results."""
        from guardtrain.curves.report import kept_config

        return kept_config(self.results)

    @cached_property
    def decomposed(self) -> list[Decomposition]:
        """The gain of each mixture taken apart, on the test set that has pairs."""
        from guardtrain.curves.decomposition import PLAIN, decompositions, needless_controls, replicates_like
        from guardtrain.curves.folder import RESULTS_FILE, kept_keys, keys_of_losses
        from guardtrain.curves.results import ResultsTable
        from guardtrain.curves.statistics import telling_panel, whole_slices

        whole = whole_slices(self.frame)
        test, metric = telling_panel(whole, _panels(self.plot))
        boot = self._boot_of_all(test, metric)
        plain, losses = None, keys_of_losses(self.results)
        if PLAIN in losses and set(losses[PLAIN]) != (kept_keys(self.results) or set()):
            bare = ResultsTable(self.results / RESULTS_FILE).read()
            bare = bare[bare["run"].isin(losses[PLAIN]) & (bare["test"] == test) & (bare["control"] == "paired")]
            if set(bare["seed"]) == set(self.frame["seed"]):
                plain = replicates_like(boot, bare, self.scores)
        return decompositions(boot, plain, needless_controls(boot, self.kept))

    def decomposition_text(self) -> str:
        """The parts of the gain as text, and the commands that add what was not run."""
        from guardtrain.curves.decomposition import decomposition_text, missing_lines

        if not self.decomposed:
            return ""
        return "\n".join(
            [decomposition_text(self.decomposed), *missing_lines(self.decomposed, self.kept, self.results)]
        )

    def _decomposition(self) -> Display:
        from guardtrain.curves.display_decomposition import DecompositionDisplay

        return DecompositionDisplay.of(self.decomposed, title=self.plot.title, width=self.plot.width)

    @cached_property
    def mapped(self) -> list[RatioMap]:
        """The maps of ratios over budgets, of each panel."""
        from guardtrain.curves.best_ratios import maps_of

        return maps_of(self.frame, _panels(self.plot), self._boot_of_all)

    def ratio_text(self) -> str:
        """The best share of pairs at each budget as text, where its figure is drawn."""
        from guardtrain.curves.best_ratios import ratio_text
        from guardtrain.curves.statistics import telling_panel, whole_slices

        if self.plot.figures is not None and "ratio_map" not in self.plot.figures:
            return ""
        _, metric = telling_panel(whole_slices(self.frame), _panels(self.plot))
        try:
            return ratio_text([one for one in self.mapped if one.metric == metric])
        except DataError:  # the figure is left out, with the reason
            return ""

    def _ratio_map(self) -> Display:
        from guardtrain.curves.display_ratios import RatioDisplay

        return RatioDisplay.of(self.mapped, title=self.plot.title, width=self.plot.width)

    def _boot_of_all(self, test: str, metric: str) -> PointReplicates:
        """A panel's points, over seeds and test groups where there are scores, else over seeds."""
        from guardtrain.curves.bootstrap import seed_replicates

        return self.shown_boots().get((test, metric)) or seed_replicates(self.frame, test, metric, replicates=1)

    def _multiplier(self) -> Display:
        from guardtrain.curves.display_multiplier import MultiplierDisplay

        return MultiplierDisplay.from_replicates(self._multiplier_boots(), title=self.plot.title, width=self.plot.width)

    def _multiplier_boots(self) -> list[PointReplicates]:
        from guardtrain.curves.display_multiplier import check_multiplier, multiplier_panels

        self._check_scores("that")
        check_multiplier(self.frame)  # before a bootstrap is made for nothing
        panels = multiplier_panels(self.frame, _panels(self.plot))
        if kept := [(test, metric) for test, metric in panels if test in self.resampled.tests]:
            return [self.boot(test, metric) for test, metric in kept]
        raise DataError(f"There are no test scores on '{panels[0][0]}' of all runs, which the data multiplier needs.")

    def _categories(self) -> Display:
        from guardtrain.curves.display_categories import CategoryDisplay

        plot = self.plot
        chosen = plot.categories
        return CategoryDisplay.from_results(
            self.frame,
            chosen.test,
            chosen.metric,
            x=plot.x,
            costs=plot.costs,
            title=plot.title,
            width=plot.width,
        )

    def _points(self, name: str) -> Display:
        from guardtrain.curves.display_points import ReliabilityDisplay, RocDisplay

        kind = ReliabilityDisplay if name == "reliability" else RocDisplay
        tests = list(dict.fromkeys(panel.test for panel in self.plot.panels)) or self.resampled.tests or None
        return kind.from_results(
            self.frame, self.scores, self.plot.point, tests, title=self.plot.title, width=self.plot.width
        )

    def _check_scores(self, what: str) -> None:
        """Refuse `what` where there are no scores at all."""
        if self.scores.is_dir():
            return
        raise DataError(
            f"There are no test scores at {self.scores}, which {what} cannot do without (curve and categories "
            "can). `guardtrain curve` keeps them beside the results: copy the whole folder."
        )

    def _leave_out(self, name: str, why: str) -> None:
        self._left_out.setdefault(why, []).append(name)

    def tell_left_out(self) -> None:
        """Log what was left out, and note it for the report; what has one reason, in one line."""
        from guardtrain.curves.statistics import whole_slices

        every = dict.fromkeys(str(test) for test in whole_slices(self.frame)["test"])
        if self.resampled.tests and (without := [f"'{test}'" for test in every if test not in self.resampled.tests]):
            self._leave_out(
                f"what needs test scores on {', '.join(without)}", "The scores folder does not have those of every run."
            )
        for why, names in self._left_out.items():
            log.info("left out  %s: %s", ", ".join(names), why)
            self.notes.append(f"Left out: {', '.join(names)}. {why.replace(str(self.results), 'the results folder')}")
        self._left_out.clear()


def _panels(plot: PlotSettings) -> list[tuple[str, str]] | None:
    return [(panel.test, panel.metric) for panel in plot.panels] or None
