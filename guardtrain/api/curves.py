"""A data-efficiency curve from Python: run, read, and the best of its heads."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardtrain.api.fitting import given_of_grid, grid_check, grid_for
from guardtrain.api.recipe import recipe_settings
from guardtrain.api.settings import checked, given
from guardtrain.api.training import TrainedHead, trained, trainings
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch.loggers import Logger

    from guardtrain.api.training import CurveTraining
    from guardtrain.curves.bootstrap import PointReplicates
    from guardtrain.curves.display import CurveDisplay
    from guardtrain.curves.efficiency import Estimate, LineReplicates
    from guardtrain.curves.resampled import Resampled
    from guardtrain.guards.settings import PickSettings
    from guardtrain.training.pools import Pools

log = logging.getLogger(__name__)

HEADS = ("mlp", "linear", "knn")
_SAME = 5e-3  # a run trained again alone may differ so much in a metric from the same run in a bank


@dataclass(eq=False)
class Curve:
    """The runs of one curve, in a folder that it can be gone on with.

    Args:
        folder: with `results.parquet` and the test scores; `guardtrain plot results=FOLDER` draws it.
        keys: of its runs; the folder's table may hold others.
        pools: what they drew from.
        heads: settings and recipe of each head.
    """

    folder: Path
    keys: frozenset[str] = field(repr=False)
    pools: Pools = field(repr=False)
    heads: Sequence[CurveTraining] = field(repr=False)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The results, a row a run, test set and slice: `guardtrain.curves.results.ResultRow` has the columns."""
        from guardtrain.curves.folder import RESULTS_FILE
        from guardtrain.curves.results import ResultsTable

        table = ResultsTable(self.folder / RESULTS_FILE).read()
        return table[table["run"].isin(self.keys)].reset_index(drop=True)

    @cached_property
    def _resampled(self) -> Resampled:
        from guardtrain.curves.folder import SCORES_FOLDER
        from guardtrain.curves.resampled import Resampled

        return Resampled(self.frame, self.folder / SCORES_FOLDER)

    def bootstrap(self, test: str | None = None, metric: str = "auroc") -> PointReplicates:
        """Every point with its interval over seeds and test groups, made once.

        Args:
            test: a test set; None for the first that has pairs, else the first.
            metric: of `guardtrain.curves.bootstrap.BOOTSTRAP_METRICS`.
        """
        from guardtrain.curves.statistics import telling_panel, whole_slices

        return self._resampled.boot(test or telling_panel(whole_slices(self.frame))[0], metric)

    def summary(self, panels: Sequence[tuple[str, str]] | None = None) -> str:
        """The tables that `guardtrain curve` prints.

        Args:
            panels: (test set, metric) pairs; None for the telling ones.
        """
        from guardtrain.curves.summary import summary_text

        return summary_text(self.frame, panels, boots=self._shown(panels))

    def plot(self, panels: Sequence[tuple[str, str]] | None = None, **settings: Any) -> CurveDisplay:
        """The curve drawn; in a notebook it shows, `.save(folder)` writes it.

        Args:
            panels: (test set, metric) pairs; None for the telling ones.
            settings: of `CurveDisplay.from_results`, such as `x="labels"`.
        """
        from guardtrain.curves.display import CurveDisplay

        return CurveDisplay.from_results(self.frame, panels, boots=self._shown(panels), **settings).plot()

    def budget_needed(self, *, test: str | None = None, **target: float) -> pd.DataFrame:
        """How many images each line needs for a value of a metric: `curve.budget_needed(auroc=0.9)`.

        Returns:
            A row a head and line: `images` with `low` and `high`; inf where more than were tried are needed, -inf where
            the fewest that were tried are more than enough.

        Raises:
            DataError: no metric, or several.
        """
        from guardtrain.curves.efficiency import budget_needed

        if len(target) != 1:
            raise DataError("Ask for one value of one metric, such as budget_needed(auroc=0.9).")
        ((metric, value),) = target.items()
        return self._told(test, metric, lambda line, _: {"images": budget_needed(line, value)}, real=True)

    def multiplier(self, *, test: str | None = None, metric: str = "auroc") -> pd.DataFrame:
        """How many times as many real images do as well as each line with pairs, of the same head.

        Returns:
            A row a head, line and budget `n`: `times` with `low` and `high`; inf where no number of real images that
            was tried does as well, -inf where the fewest do better.
        """
        from guardtrain.curves.efficiency import data_multiplier

        return self._told(test, metric, lambda line, real: {"times": data_multiplier(real, line)})

    def pair_worth(self, *, test: str | None = None, metric: str = "auroc") -> pd.DataFrame:
        """How many real images one pair is worth, by real images alone of the same head.

        Returns:
            A row a head, line and budget `n`: `images` with `low` and `high`, infinite as in `multiplier`.
        """
        from guardtrain.curves.efficiency import pair_worth

        return self._told(test, metric, lambda line, real: {"images": pair_worth(real, line)})

    def best(self, metric: str = "auroc", **pick: Any) -> TrainedHead:
        """The best run by a metric on images that no run was trained on, trained again: a curve keeps no heads.

        Args:
            metric: a column of the results.
            pick: of `guardtrain.guards.settings.PickSettings`, such as `head="mlp"` or `best="setting"`.

        Raises:
            ConfigError, DataError: see `guardtrain.guards.picking.pick_run`.
        """
        from guardtrain.guards.settings import PickSettings

        return self.picked(checked(PickSettings, {"metric": metric, **pick}, "best"), log.info)

    def picked(self, pick: PickSettings, say: Callable[[str], None]) -> TrainedHead:
        """The run that `pick` chooses, trained again; see `best`.

        Args:
            pick: how it is chosen.
            say: tells the user what was chosen.
        """
        from guardtrain.curves.engine import make_mixer, plan_runs
        from guardtrain.guards.picking import pick_run

        mixer = make_mixer(self.pools)
        made_by = {
            run.key: (run, about)
            for about in self.heads
            for run in plan_runs(self.pools, about[0].grid, recipe_settings(*about), mixer)
        }
        mine = self.frame[self.frame["run"].isin(made_by)]
        if mine.empty:
            raise DataError(f"{self.folder} has no results of its config's runs: its data or settings changed since.")
        picked = pick_run(mine, self.pools, {key: run for key, (run, _) in made_by.items()}, self.folder, pick)
        run, about = made_by[picked.run]
        if picked.text:
            say(picked.text)
        point = run.point
        say(
            f"run {run.key} ({about[1].label}, budget {point.budget}, ratio {point.ratio:g} {point.arm} "
            f"{point.control}, seed {point.seed}) is trained again"
        )
        checkpoints = self.folder / "checkpoints" / f"guard-{run.key}"
        head = trained(self.pools, run, about, folder=checkpoints)
        shutil.rmtree(checkpoints, ignore_errors=True)
        rows = mine[mine["run"] == run.key]
        notes = picked.notes + _differences(rows, head.rows, picked.metric or "auroc")
        return replace(head, rows=rows, notes=notes, picked=picked.about)

    def _shown(self, panels: Sequence[tuple[str, str]] | None) -> dict[tuple[str, str], PointReplicates]:
        """Return the bootstraps of panels, of the telling ones where there are None."""
        from guardtrain.curves.statistics import default_panels, whole_slices

        return self._resampled.shown(panels or default_panels(whole_slices(self.frame)))

    def _told(
        self,
        test: str | None,
        metric: str,
        of: Callable[[LineReplicates, LineReplicates], dict[str, Estimate | list[Estimate]]],
        *,
        real: bool = False,
    ) -> pd.DataFrame:
        """Tabulate what `of` says of lines with pairs (with `real`, of real data, too) beside real data alone."""
        import pandas as pd

        from guardtrain.curves.efficiency import LineReplicates

        boot, rows = self.bootstrap(test, metric), []
        for head in boot.heads:
            lines = boot.lines(head)
            if lines[0].control != "none":
                raise DataError("The curve has no real data alone to compare with: its ratios must have 0 among them.")
            alone = LineReplicates.of(boot, lines[0], head)
            for line in lines if real else lines[1:]:
                own = LineReplicates.of(boot, line, head)
                ((name, found),) = of(own, alone).items()
                where = {"head": head, "arm": line.arm, "control": line.control, "ratio": line.ratio or 0.0}
                for k, one in enumerate(found if isinstance(found, list) else [found]):
                    at = {"n": int(own.n_images[k])} if isinstance(found, list) else {}
                    rows.append(where | at | {name: one.value, "low": one.low, "high": one.high})
        return pd.DataFrame(rows)


def run_curve(
    pools: Pools,
    head: Any = HEADS,
    *,
    out: str | Path,
    budgets: Sequence[int] | None = None,
    ratios: Sequence[float] | None = None,
    controls: Sequence[str] | None = None,
    seeds: int | None = None,
    loss: str | None = None,
    settings: Sequence[str] = (),
) -> Curve:
    """Run a data-efficiency curve, as `guardtrain curve` does; runs that are in `out` already are not run again.

    Args:
        pools: of `make_pools`.
        head: a head, or several: names of `list_heads()`, what `create_head` gives, or heads of your own.
        out: the folder of results and scores.
        budgets: numbers of labelled training images; None for the standard ones that there are images for.
        ratios: shares of pair images; 0 is real images alone. None for 0, ¼, ½ and 1.
        controls: `paired` and what it is compared with: `shuffled`, `unpaired`, `balanced`, `real`; None for the first
            four.
        seeds: how many draws; None for 5.
        loss: `pairs` (default) or `bce`.
        settings: further settings as on the command line, such as `"grid.arms=[add]"`.

    Raises:
        ConfigError, MixtureError: settings that are wrong, or more images than there are.

    >>> # gt.run_curve(pools, "linear", budgets=[64, 256], ratios=[0, 0.5], out="curve").budget_needed(auroc=0.9)
    """
    asked = given(grid__budgets=budgets, grid__ratios=ratios, grid__controls=controls, grid__seeds=seeds, loss=loss)
    overrides = [*asked, *settings]
    several = head if isinstance(head, (list, tuple)) else [head]
    heads = trainings(pools, several, overrides)
    grid_check(heads[0][0].grid, overrides, log.info)(pools.supply)
    return train_curve(pools, heads, Path(out), overrides)


def train_curve(
    pools: Pools,
    heads: Sequence[CurveTraining],
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    loggers: Sequence[Logger] = (),
    say: Callable[[str], None] = log.info,
) -> Curve:
    """Train what is missing of the grid of each head.

    Args:
        pools: what is drawn from.
        heads: settings, which have the grid, and recipe of each.
        folder: of results and scores.
        overrides: what the user gave: controls that were asked for are run, whatever they can show.
        loggers: Lightning loggers of the training losses.
        say: tells the user what is done.
    """
    from guardtrain.curves.decomposition import loss_name
    from guardtrain.curves.engine import run_curve as run_grid
    from guardtrain.curves.folder import keep_keys

    keys: set[str] = set()
    for made, recipe in heads:
        say(f"{recipe.label}: {recipe.rule}")
        keys |= run_grid(
            pools,
            recipe,
            recipe_settings(made, recipe),
            grid_for(recipe, made.grid, given_of_grid("controls", overrides)),
            folder,
            memory_gb=made.memory_gb,
            loggers=loggers,
            say=say,
        )
    keep_keys(folder, keys, loss_name(heads[0][0].loss))
    return Curve(folder, frozenset(keys), pools, heads)


def _differences(kept: pd.DataFrame, again: pd.DataFrame, metric: str) -> tuple[str, ...]:
    """A note for each test set on which the run, trained again, differs in `metric` from what the table has of it."""
    (then, now) = (rows[rows["slice_kind"] == "all"].set_index("test")[metric] for rows in (kept, again))
    return tuple(
        f"Trained again it has {now[test]:.4f} instead of the table's {then[test]:.4f}, {metric} on {test}."
        for test in now.index[np.abs(now - then[now.index]) > _SAME]
    )
